"""News of AWS Batch in any order, some of it twice, some never: always the same end (FAULTS R-11).

python -m tests.faults.batch_news [--examples 10000]
"""

import argparse
import sys

from hypothesis import HealthCheck, given, settings

from engine.executors.batch_states import Seen
from tests.faults.test_batch import news_comes_to_the_end, streams
from tests.reliability.record import add_record_option, write_record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    add_record_option(parser)
    options = parser.parse_args()
    seen = 0

    @settings(
        max_examples=options.examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(streams())
    def check(story: tuple[Seen, list[Seen]]) -> None:
        nonlocal seen
        news_comes_to_the_end(story)
        seen += 1

    check()
    sys.stdout.write(f"{seen:,} streams of news, each with the end that it should have\n")
    write_record(options.record, "R-11", {"streams of news": seen}, passed=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
