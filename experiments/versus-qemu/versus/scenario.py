"""What is compared: each scenario is a few cells, and each cell is one kind of run."""
from versus.units import parse_size, size_text

DEFAULTS = {"memory": "4G", "fill": "3G", "ws": "512M", "rate": 50000, "compress": 0,
            "channels": "1,2"}

SCENARIOS = {
    "standard": ("incompressible memory, a sixth of it rewritten at 50,000 pages/s", {}),
    "sparse64": ("1 GiB touched, in a guest of 1.25 GiB and in one of 64 GiB",
                 {"memory": "1280M,64G", "fill": "1G", "ws": "64M", "rate": 5000, "channels": "1"}),
    "idle": ("nothing is written during the migration", {"ws": "0"}),
    "compressible": ("three quarters of each page compress to nothing", {"compress": 75}),
}

SPARSE_BYTES = 32 << 30  # from here on a guest may be larger than its host


def settle(name, given):
    """The scenario's settings, overridden by what the user gave (not None)."""
    settings = {**DEFAULTS, **SCENARIOS[name][1]}
    settings.update({key: value for key, value in given.items() if value is not None})
    return settings


def cells(settings):
    """[(label, fields of a Run)], in the order in which they are run."""
    memories = [parse_size(text) for text in settings["memory"].split(",")]
    channels = [int(text) for text in settings["channels"].split(",")]
    found = []
    for memory in memories:
        for nr in channels:
            label = f"{nr} channel" + ("s" if nr > 1 else "")
            if len(memories) > 1:
                label = f"{size_text(memory)} guest, {label}"
            found.append((label, {
                "memory": memory, "fill": parse_size(settings["fill"]),
                "ws": parse_size(settings["ws"]), "rate": settings["rate"],
                "compress": settings["compress"], "channels": nr,
                "sparse": memory >= SPARSE_BYTES, "label": label}))
    return found
