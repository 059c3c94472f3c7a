"""The judges of the caption decoder notice deliberate faults: the plain algorithms, and the recordings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from beam_judge import judge_beams, judge_known, random_cases
from caption_faults import FAULTS
from caption_judges import CaptionerJudge, SamplingJudge
from coca_parity import FIXTURES, NAME, cut, load_parity
from faults import Fault, applied
from known_beams import KNOWN

Judge = Callable[[], object]


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judge]:
    folder = tmp_path_factory.mktemp("recordings")
    parity, sampling = load_parity(), SamplingJudge()
    cut(folder)
    network, images, config = parity.load(folder)
    recording = parity.Recording(folder / f"{NAME}.npz", config)

    def replay() -> None:
        report = parity.compare_sampling(network, images, recording)
        assert report.fails() == []

    def recorded_beams() -> None:
        report = parity.compare_beams(network, images[:8], FIXTURES / f"{parity.MORE_BEAMS}.npz", parity.rules(config))
        assert report.fails() == []

    return {
        "sampling": sampling,
        "beams": sampling.judge_beams,
        "captioner": CaptionerJudge(),
        "tables": lambda: judge_beams(random_cases(60)),
        "known": lambda: [judge_known(name) for name in KNOWN],
        "parity": replay,
        "recorded beams": recorded_beams,
    }


def test_judges_find_no_fault_where_there_is_none(judges: dict[str, Judge]) -> None:
    for judge in judges.values():
        judge()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some faults compute nonsense
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_is_noticed(judges: dict[str, Judge], fault: Fault) -> None:
    for name in fault.judges:
        with applied(fault), pytest.raises((AssertionError, IndexError, RuntimeError, StopIteration, ValueError)):
            judges[name]()


def test_names_of_faults_are_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 90
