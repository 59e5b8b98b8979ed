"""Converts VALUE from FROM_UNIT to TO_UNIT.

Factors to the SI unit are exact where they are defined so (NIST SP 811, appendix B; IEC 80000-13 for KiB and so on).
"""

import json
import math
import os
import sys

METRIC = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
UNITS: dict[str, dict[str, float]] = {
    "length": {
        "m": 1, "km": 1e3, "dm": 0.1, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "in": 0.0254, "ft": 0.3048,
        "yd": 0.9144, "mi": 1609.344, "nmi": 1852, "au": 149597870700, "ly": 9460730472580800,
    },
    "mass": {
        "kg": 1, "g": 1e-3, "mg": 1e-6, "ug": 1e-9, "t": 1e3, "lb": 0.45359237, "oz": 0.028349523125,
        "st": 6.35029318, "ct": 2e-4,
    },
    "time": {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60, "h": 3600, "d": 86400, "week": 604800},
    "area": {
        "m2": 1, "km2": 1e6, "cm2": 1e-4, "mm2": 1e-6, "ha": 1e4, "ft2": 0.09290304, "in2": 6.4516e-4,
        "acre": 4046.8564224, "mi2": 2589988.110336,
    },
    "volume": {
        "m3": 1, "l": 1e-3, "dl": 1e-4, "cl": 1e-5, "ml": 1e-6, "cm3": 1e-6, "gal": 3.785411784e-3,
        "qt": 9.46352946e-4, "pt": 4.73176473e-4, "cup": 2.365882365e-4, "floz": 2.95735295625e-5,
        "ft3": 0.028316846592,
    },
    "speed": {"m/s": 1, "km/h": 1 / 3.6, "mi/h": 0.44704, "kn": 1852 / 3600, "ft/s": 0.3048},
    "pressure": {
        "Pa": 1, "hPa": 100, "kPa": 1e3, "MPa": 1e6, "bar": 1e5, "mbar": 100, "atm": 101325, "psi": 6894.757293168,
        "mmHg": 133.322387415,
    },
    "energy": {
        "J": 1, "kJ": 1e3, "MJ": 1e6, "cal": 4.184, "kcal": 4184, "Wh": 3600, "kWh": 3.6e6, "eV": 1.602176634e-19,
        "BTU": 1055.05585262,
    },
    "power": {"W": 1, "kW": 1e3, "MW": 1e6, "hp": 745.69987158227022, "PS": 735.49875},
    "angle": {"rad": 1, "deg": math.pi / 180, "turn": 2 * math.pi},
    "data": {
        "bit": 0.125, "B": 1, **{f"{prefix}B": factor for prefix, factor in (METRIC | BINARY).items()},
        **{f"{prefix}bit": factor / 8 for prefix, factor in METRIC.items()},
    },
}  # fmt: skip
TEMPERATURES = {"K": (1.0, 0.0), "degC": (1.0, 273.15), "degF": (5 / 9, 459.67 * 5 / 9)}
"""Factor and offset to kelvin: F, for one, is (F + 459.67) * 5/9."""
ALIASES = {
    "°C": "degC", "C": "degC", "celsius": "degC", "°F": "degF", "F": "degF", "fahrenheit": "degF", "kelvin": "K",
    "mph": "mi/h", "kmh": "km/h", "kph": "km/h", "µm": "um", "μm": "um", "m²": "m2", "km²": "km2", "m³": "m3", "L": "l",
    "mL": "ml", "liter": "l", "litre": "l", "inch": "in", "foot": "ft", "feet": "ft", "mile": "mi", "meter": "m",
    "metre": "m", "gram": "g", "pound": "lb", "ounce": "oz", "second": "s", "minute": "min", "hour": "h", "day": "d",
    "°": "deg", "byte": "B",
}  # fmt: skip


def find(name: str) -> tuple[str, str]:
    """The unit's own name and its quantity."""
    candidates = (name, ALIASES.get(name), ALIASES.get(name.lower()), ALIASES.get(name.lower().rstrip("s")))
    for candidate in candidates:
        if candidate in TEMPERATURES:
            return candidate, "temperature"
        for quantity, units in UNITS.items():
            if candidate in units:
                return candidate, quantity
    known = "; ".join(
        f"{quantity}: {' '.join(units)}" for quantity, units in [*UNITS.items(), ("temperature", TEMPERATURES)]
    )
    sys.exit(f'There is no unit "{name}". There are {known}.')


def convert(value: float, source: str, target: str, quantity: str) -> float:
    if quantity == "temperature":
        factor, offset = TEMPERATURES[source]
        into, less = TEMPERATURES[target]
        return (value * factor + offset - less) / into
    return value * UNITS[quantity][source] / UNITS[quantity][target]


source, quantity = find(os.environ["FROM_UNIT"].strip())
target, wanted = find(os.environ["TO_UNIT"].strip())
if quantity != wanted:
    sys.exit(f"{source} is a unit of {quantity} and {target} of {wanted}. Choose one of {quantity}.")
result = convert(float(os.environ["VALUE"]), source, target, quantity)
if not math.isfinite(result):
    sys.exit("The result is too large a number.")
print(json.dumps({"result": float(f"{result:.12g}"), "unit": target, "quantity": quantity}))
