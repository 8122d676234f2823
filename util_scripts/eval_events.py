"""Mean average precision of events against an annotation, as ActivityNet defines it.

    python -m util_scripts.eval_events events.json annotation.json --subset val

The result is what util_scripts.predict --events --json writes, or a submission of ActivityNet's
form.
"""

from collections.abc import Sequence
from pathlib import Path

from runtime.arguments import FRACTION, Parser, add_subset
from runtime.errors import run


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.eval_events',
                    'mAP of events at temporal overlaps from 0.5 to 0.95.', has_notes=False)
    parser.add_argument('result_path', type=Path, metavar='RESULT.json',
                        help='events of util_scripts.predict --events --json, or {"results": '
                             '{video: [{"label", "score", "segment": [begin, end]}]}} in seconds')
    parser.add_argument('ground_truth_path', type=Path, metavar='ANNOTATION.json',
                        help='annotation file with segments in seconds, as ActivityNet has it')
    add_subset(parser.add_argument)
    parser.add_argument('--tiou', type=FRACTION, nargs='+', metavar='OVERLAP',
                        help='overlaps at which an event is right (default: 0.5, 0.55 ... 0.95)')
    parser.add_argument('--per_class', action='store_true',
                        help='also print the mean over the overlaps for each class, worst first')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from util_scripts.helpers.event_evaluation import report_events
    report_events(args)


if __name__ == '__main__':
    run(main)
