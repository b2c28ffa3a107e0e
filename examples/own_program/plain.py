"""The same program in plain DSPy: `python plain.py best.json` loads what DSPex optimized and saved."""

import sys

from program import Ages

ages = Ages()
ages.load(sys.argv[1])
print("plain DSPy:", ages.answer.predict.signature.instructions)
