"""placeholder"""

NAMES = ("dspy.ColBERTv2",)
