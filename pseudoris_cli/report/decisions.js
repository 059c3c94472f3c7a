/* Decisions by hand: a text of a mask is kept or dropped. The browser remembers them; a file takes them to `pseudoris filter --decisions`. */

const DECISIONS = (() => {
  const place = `pseudoris decisions: ${PAGE.versions.captions} in ${PAGE.work}`;
  const made = new Map();
  const keyOf = (image, row) => JSON.stringify([image, row[AT.mask], row[AT.caption].trim()]);
  try {
    for (const one of JSON.parse(localStorage.getItem(place)) ?? [])
      made.set(JSON.stringify([one.image, one.mask, one.text]), one);
  } catch {
    /* no storage here, or not ours: decisions last as long as the page */
  }

  function remember() {
    try {
      localStorage.setItem(place, JSON.stringify([...made.values()]));
    } catch {
      /* as above */
    }
  }

  return {
    of: (image, row) => (made.size ? made.get(keyOf(image, row))?.decision : undefined),
    decide(image, row, decision) {
      const [mask, candidate, text] = [row[AT.mask], row[AT.candidate], row[AT.caption].trim()];
      if (!text) return;
      if (decision) made.set(keyOf(image, row), { image, mask, candidate, text, decision });
      else made.delete(keyOf(image, row));
      remember();
    },
    forget() {
      made.clear();
      remember();
    },
    counts() {
      const keep = [...made.values()].filter((one) => one.decision === "keep").length;
      return { keep, drop: made.size - keep };
    },
    json() {
      const { masks, captions, filter } = PAGE.versions;
      const decisions = [...made.values()];
      return JSON.stringify({ format: "pseudoris-decisions-1", masks, captions, filter, decisions }, null, 1) + "\n";
    },
    csv() {
      const names = ["image", "mask", "candidate", "text", "decision"];
      const quoted = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
      const { masks, captions } = PAGE.versions;
      const lines = [...made.values()].map((one) => [...names.map((name) => one[name]), masks, captions].map(quoted));
      return [[...names, "masks", "captions"], ...lines].map((cells) => cells.join(",") + "\r\n").join("");
    },
  };
})();

/* Whether a candidate stays, by hand or else by the filter. */
const stays = (image, row) => {
  const decision = DECISIONS.of(image, row);
  return decision ? decision === "keep" : isKept(row);
};

function save(kind) {
  const text = kind === "csv" ? DECISIONS.csv() : DECISIONS.json();
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }));
  link.download = `decisions-${PAGE.versions.captions}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function tellDecisions() {
  const { keep, drop } = DECISIONS.counts();
  const some = keep + drop > 0;
  document.getElementById("decided").textContent = some
    ? `by hand: ${keep} kept, ${drop} dropped`
    : "on a row: y keeps, n drops, u undoes";
  for (const id of ["save", "save-csv", "forget"]) document.getElementById(id).hidden = !some;
}
