"""Commands beside main.py: one per file, run as `python -m util_scripts.NAME`.

A command parses first and imports after. Its file holds `build_parser` and `main(argv=None)`, which
parses the flags, checks that they go together, and only then imports what does the work. What needs
torch, h5py or matplotlib, which take up to seconds to import, lies in util_scripts/helpers, so that
--help and a mistyped flag are answered at once; numpy and av may be imported at the top. Helpers
import no command.
"""
