"""placeholder"""

NAMES = ("miprov2",)
