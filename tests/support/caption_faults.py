"""Faults in the caption decoder, each with the judges that must notice it.

`sampling`, `captioner`: tests/support/caption_judges.py; `known`, `tables`: beam_judge.py; `parity`: benchmarks/parity_coca.py on
ten steps of a recording, or on the recorded beams.
"""

from __future__ import annotations

from faults import Fault

S, P, BEAM, PARITY = ("sampling",), ("sampling", "parity"), ("tables",), ("parity",)
_DISTRIBUTION, _DISTINCTIVE, _BEAM = "decoding.distribution:", "decoding.distinctive:", "decoding.beam:"
_NETWORK, _CACHE, _ENGINE, _COCA = (
    "decoding.network:",
    "decoding.kv_cache:",
    "decoding.engine:",
    "backends.coca:CocaCaptioner.",
)
_KEEP, _NEXT, _SET = (
    _DISTRIBUTION + "keep_thresholds",
    _DISTRIBUTION + "next_tokens",
    _DISTINCTIVE + "ContrastSet.__init__",
)
_SAMPLE, _RANKED, _GROW = _DISTINCTIVE + "sample_captions", _BEAM + "_RankedContinuations.", _BEAM + "_Search.grow"
_TOP_P = "int(np.searchsorted(cumulative, top_p))"
_SIMILARITY = "rules.contrast * similarity / (group.size - 1)"
_CLAMP = "similarity = np.maximum(similarity, rules.similarity_clamp)"
_PADDED = "& rules.pad_ends_row)"
_STOP = "worst >= float(continuations[0].score) / length"
_UNIFORMS = "uniforms[alive, length - 1]"

FAULTS = [
    Fault("top-k keeps one more", _KEEP, "rules.top_k[s], vocabulary) - 1", "rules.top_k[s], vocabulary - 1)", P),
    Fault("top-k keeps one less", _KEEP, "min(rules.top_k[s], vocabulary) - 1", "max(rules.top_k[s] - 2, 0)", P),
    Fault("top-p keeps one more", _KEEP, _TOP_P, _TOP_P + " + 1", P),
    Fault("top-p keeps one less", _KEEP, _TOP_P, f"max({_TOP_P} - 1, 0)", P),
    Fault("top-p of the sampler before", _KEEP, "rules.top_p[s - len(rules.top_k)]", "rules.top_p[s - len(rules.top_k) - 1]", P),
    Fault("top-p mass with the barred end", _NEXT, "-torch.inf\n            top, mass = peak_and_mass(own)", "-torch.inf", S),
    Fault("contrast added", _DISTRIBUTION + "_candidates", "values - other", "values + other", P),
    Fault("contrast over M", _SET, _SIMILARITY, "rules.contrast * similarity / group.size", P),
    Fault("similarity not used", _SET, _SIMILARITY, "rules.contrast / (group.size - 1)", P),
    Fault("similarity transposed", _SET, "group.similarity[row.crop, others]", "group.similarity[others, row.crop]", S),
    Fault("itself among the others", _SET, "np.delete(np.arange(group.size), row.crop)", "np.arange(group.size)[1:]", P),
    Fault("another group's own crop", _SET, "= group.first + row.crop", "= groups[0].first + row.crop", S),
    Fault("another group's other crops", _SET, "= group.first + others", "= groups[0].first + others", S),
    Fault("weights of the first other", _DISTRIBUTION + "_logits", "weights[:, column, None]", "weights[:, 0, None]", S),
    Fault("hidden states of the first other", _DISTRIBUTION + "_logits", "others[:, column]", "others[:, 0]", S),
    Fault("the end is contrasted", _DISTRIBUTION + "_weigh", "_softmax(found.own[", "_softmax(found.contrasted[", P),
    Fault("the pad is exempt too", _DISTRIBUTION + "_weigh", "ends = token == end", "ends = (token == end) | (token == 0)", S),
    Fault("the end is barred too long", _NEXT, "length < rules.min_length", "length <= rules.min_length", S),
    Fault("the end is barred too short", _NEXT, "length < rules.min_length", "length < rules.min_length - 1", S),
    Fault("a token less at most", _SAMPLE, "length == rules.max_length - 1", "length == rules.max_length - 2", P),
    Fault("a pad always ends", _SAMPLE, _PADDED, "& True)", S),
    Fault("a pad never ends", _SAMPLE, _PADDED, "& False)", S),
    Fault("temperature", _NETWORK + "CaptionNetwork.logits", "(pad_rows(hidden) @", "(0.999 * pad_rows(hidden) @", P),
    Fault("log-probability after the rule", _NEXT, "lowest, totals, views", "lowest, top + np.log(mass), views", S),
    Fault("log-probability of the contrast", _DISTRIBUTION + "_candidates", "values - totals", "contrasted - totals", P),
    Fault("log-probability without a forced end", _SAMPLE, "+= own_logprobs(", "+= 0 * own_logprobs(", P),
    Fault("log-probability of the next entry", _SAMPLE, "kept.logprob[entry]", "kept.logprob[entry - 1]", P),
    Fault("log-probability of the last token", _SAMPLE, "logprob[alive] += kept", "logprob[alive] = kept", P),
    Fault("scale-preserving by the mean weight", _SET, "self.weights.sum(1", "self.weights.mean(1", S),
    Fault("scale-preserving is literal", _SET, 'rules.contrast_form == "literal"', "True", S),
    Fault("literal preserves the scale", _SET, 'rules.contrast_form == "literal"', "False", P),
    Fault("one mask less is contrasted", "decoding.rules:DecodingRules.contrasts", "masks <= self", "masks < self", S),
    Fault("one mask more is contrasted", "decoding.rules:DecodingRules.contrasts", "masks <= self", "masks - 1 <= self", S),
    Fault("similarity clamped from above", _SET, _CLAMP, _CLAMP.replace("maximum", "minimum"), S),
    Fault("similarity never clamped", _SET, _CLAMP, "pass", S),
    Fault("another sampler", _SAMPLE, "rows[row].sampler for", "rules.samplers - 1 - rows[row].sampler for", P),
    Fault("the first uniform again and again", _ENGINE + "Decoder._sample", _UNIFORMS, "uniforms[alive, 0]", S),
    Fault("the uniform after", _ENGINE + "Decoder._sample", _UNIFORMS, "uniforms[alive, length]", S),
    Fault("uniforms of rows that have ended", _ENGINE + "Decoder._sample", _UNIFORMS, "uniforms[: len(alive), length - 1]", S),
    Fault("uniforms of the first chunk", _ENGINE + "Decoder._sample", "for row in chunk_rows", "for row in rows[: len(chunk_rows)]", S),
    Fault("uniforms of crop 0", _ENGINE + "Decoder._sample", "uniforms[row.crop, row.sampler]", "uniforms[0, row.sampler]", S),
    Fault("a row lost between chunks", _ENGINE + "even_parts", "(part + 1) * count // parts", "(part + 1) * count // parts - 1", S),
    Fault("beams of the first group", _ENGINE + "Decoder._decode_batch", "first[number] + crop : first[number]", "crop : 0", ("beams",)),
    Fault("a sum not normalised", "decoding.sampling:draw", "number * cumulative[-1]", "number", S),
    Fault("a draw from above", "decoding.sampling:draw", "number * cumulative", "(1 - number) * cumulative", S),
    Fault("a key less", _NETWORK + "attend_self", "cache[0].narrow(2, 0, position + 1), cache", "cache[0].narrow(2, 0, max(position, 1)), cache", S),
    Fault("a key in the place before", _NETWORK + "attend_self", "narrow(2, position, 1).copy_(key)", "narrow(2, max(position - 1, 0), 1).copy_(key)", P),
    Fault("the embedding of the position before", _NETWORK + "CaptionNetwork.text_step", "embedding[position]", "embedding[max(position - 1, 0)]", P),
    Fault("keys of another crop", _NETWORK + "CaptionNetwork.decoder_step", "kv[queries.first :", "kv.roll(1, 0)[queries.first :", P),
    Fault("keys not of the asked crops", _NETWORK + "CaptionNetwork.decoder_step", "kv[queries.first : queries.first +", "kv[0 :", ("beams",)),
    Fault("queries not in order", _CACHE + "_queries", "flat[slots[order]] =", "flat[slots] =", S),
    Fault("pairs not copied", _CACHE + "PrefixStates._assign_slots", "_copy(self._pairs, pair_parents, pair_slots, self.length)", "pass", S),
    Fault("prefixes not copied", _CACHE + "PrefixStates._assign_slots", "_copy(self._text, parents, slots, self.length)", "pass", S),
    Fault("a position less copied", _CACHE + "_copy", "= layer[:, start, :, :length]", "= layer[:, start, :, :length] * (torch.arange(length) < length - 1)[:, None]", S),
    Fault("queries not scaled", _NETWORK + "attend_self", "query * head_width**-0.5", "query", P),
    Fault("keys and values swapped", _NETWORK + "attend_crop", "(query, keys, values)", "(query, values, keys)", P),
    Fault("no final norm", _NETWORK + "CaptionNetwork.decoder_step", "self.coca.text_decoder.ln_final(x)", "x", P),
    Fault("latents not of unit length", _NETWORK + "CaptionNetwork.encode", "F.normalize(latent[: len(part)].float(), dim=-1)", "latent[: len(part)].float()", PARITY),
    Fault("numbers without the mask", _COCA + "_uniforms", "mask.mask_id, kind", "0, kind", ("captioner",)),
    Fault("numbers without the crop kind", _COCA + "_uniforms", "mask.mask_id, kind", 'mask.mask_id, "masked"', ("captioner",)),
    Fault("numbers without the image", _COCA + "_uniforms", "image.key", '""', ("captioner",)),
    Fault("numbers without the seed", _COCA + "_uniforms", "self._settings.seed", "0", ("captioner",)),
    Fault("crops of the first image", _COCA + "_groups", "first = here.stop", "first = 0", ("captioner",)),
    Fault("latents of one crop kind", _COCA + "_groups", "encoded[kind][0][here]", 'encoded["masked"][0][here]', ("captioner",)),
    Fault("captions of the first mask", _COCA + "_records", "of_masks[place]", "of_masks[0]", ("captioner",)),
    Fault("numbers that skip", _COCA + "_records", "number += 1", "number += 2", ("captioner",)),
    Fault("an end closes at any rank", _GROW, "elif rank < self.width:", "else:", ("known", "tables")),
    Fault("closed scores count the end", _GROW, "score) / length, Generated", "score) / (length + 1), Generated", ("known", "tables")),
    Fault("open scores do not count the start", _BEAM + "_Search.result", "score) / length", "score) / (length - 1)", ("known", "tables")),
    Fault("early stop reversed", _GROW, _STOP, _STOP.replace(">=", "<="), ("known", "tables")),
    Fault("early stop not at a tie", _GROW, _STOP, _STOP.replace(">=", ">"), BEAM),
    Fault("early stop by the best", _GROW, "worst = min(", "worst = max(", BEAM),
    Fault("early stop a token longer", _GROW, _STOP, _STOP.replace("length", "(length + 1)"), BEAM),
    Fault("early stop once full", _GROW, _STOP, "True", BEAM),
    Fault("never an early stop", _GROW, _STOP, "False", BEAM),
    Fault("stops when half full", _GROW, "len(self.finished) >= self.width", "2 * len(self.finished) >= self.width", BEAM),
    Fault("of equal ones the first", _BEAM + "_Search.result", "max(reversed(self.finished)", "max((self.finished)", ("known", "tables")),
    Fault("an equal one replaces", _BEAM + "_Search._finish", "score > self.finished", "score >= self.finished", ("known",)),
    Fault("one more is kept", _BEAM + "_Search._finish", "len(self.finished) < self.width", "len(self.finished) <= self.width", BEAM),
    Fault("the best is replaced", _BEAM + "_Search._finish", "worst = min(range", "worst = max(range", BEAM),
    Fault("open beams do not count", _BEAM + "_Search.result", "if not self.done", "if not self.finished", BEAM),
    Fault("open beams count when done", _BEAM + "_Search.result", "if not self.done", "if True", BEAM),
    Fault("too few candidates", _RANKED + "of_search", "found[: 2 * search.width]", "found[: search.width + 1]", BEAM),
    Fault("a beam too few goes on", _GROW, "if len(beams) == self.width", "if len(beams) == max(1, self.width - 1)", BEAM),
    Fault("beams: the end is barred too long", _RANKED + "__init__", "length < rules", "length <= rules", ("known", "tables")),
    Fault("beams: the end is barred too short", _RANKED + "__init__", "length < rules.min_length", "length < rules.min_length - 1", ("known", "tables")),
    Fault("beams: a token less at most", _BEAM + "search_captions", "while length < rules.max_length", "while length < rules.max_length - 1", ("known", "tables")),
    Fault("all beams start at 0", _BEAM + "search_captions", "[_Beam((), _NEVER", "[_Beam((), np.float32(0)", BEAM),
    Fault("log-softmax is summed", _RANKED + "of_search", "np.float32(value) +", "np.float32(logprob) +", ("tables", "recorded beams")),
    Fault("beams: log-probability of the logits", _RANKED + "of_search", "beam.logprob + logprob", "beam.logprob + value", ("tables", "recorded beams")),
    Fault("beams: log-probability of the last token", _RANKED + "of_search", "beam.logprob + logprob", "logprob", ("tables", "recorded beams")),
    Fault("beams: log-probability after the rule", _RANKED + "__init__", "top, mass = peak_and_mass(logits)", "logits[:, rules.end] -= np.inf if length < rules.min_length else 0; top, mass = peak_and_mass(logits)", BEAM),
    Fault("the slot of another beam", _GROW, "continuation.logprob, beam.slot", "continuation.logprob, self.beams[0].slot", BEAM),
    Fault("the logits of another beam", _RANKED + "of_search", "self._pair[first + number]", "self._pair[first]", BEAM),
    Fault("beams of other crops", _BEAM + "search_captions", "zip(crops, searches", "zip(range(len(crops)), searches", BEAM),
]  # fmt: skip
