"""Results as text for a terminal and as Markdown for a page: one table a cell."""
from versus import judge

NAMES = {"qemu": "QEMU", "godwit": "Godwit"}


def number(value, digits):
    return "-" if value is None else f"{value:,.{digits}f}"


def spread_text(runs, metric):
    values = judge.spread(runs, metric)
    if not values:
        return "-"
    middle, least, most = (number(value, metric.digits) for value in values)
    return middle if least == most else f"{middle} ({least} .. {most})"


def rows(results, label):
    """[name, QEMU, Godwit, ratio], as text; metrics nobody measured are left out."""
    qemu, godwit = (judge.runs_of(results, vmm, label) for vmm in ("qemu", "godwit"))
    for metric in judge.METRICS:
        if not judge.spread(qemu, metric) and not judge.spread(godwit, metric):
            continue
        name = f"{metric.name}, {metric.unit}" if metric.unit else metric.name
        yield [name, spread_text(qemu, metric), spread_text(godwit, metric),
               number(judge.ratio(godwit, qemu, metric), 2)]


def labels(results):
    return list(dict.fromkeys(r["run"]["label"] for r in results))


def count(results, vmm, label):
    return len(judge.runs_of(results, vmm, label))


def heading(results, label):
    return ["median (min .. max)", *(f"{NAMES[vmm]}, {count(results, vmm, label)} runs"
                                     for vmm in ("qemu", "godwit")), "ratio"]


def text(scenario, results):
    lines = []
    for label in labels(results):
        table = [heading(results, label), *rows(results, label)]
        widths = [max(len(row[i]) for row in table) for i in range(4)]
        lines.append(f"\n{scenario}: {label}")
        for row in table:
            lines.append("  " + row[0].ljust(widths[0]) + "  " + "  ".join(
                cell.rjust(width) for cell, width in zip(row[1:], widths[1:])))
    lines.append("")
    lines += [f"{v.word}  {v.what}: {number(v.found, 2)} (target: at most {v.limit:g})"
              for v in judge.verdicts(scenario, results)]
    lines += [f"FAILED  {NAMES[r['vmm']]}, {r['run']['label']}, repetition {r['repeat']}: "
              f"{r['failure']}" for r in results if "failure" in r]
    return "\n".join(lines)


def _markdown_row(cells):
    return "| " + " | ".join(cells) + " |"


def markdown(scenario, results):
    lines = []
    for label in labels(results):
        head = heading(results, label)
        lines += [f"### {scenario}: {label}", "", _markdown_row(head), "|---|---:|---:|---:|"]
        lines += [_markdown_row(row) for row in rows(results, label)]
        lines.append("")
    lines += ["| target | at most | found | |", "|---|---:|---:|---|"]
    lines += [_markdown_row([v.what, f"{v.limit:g}", number(v.found, 2), v.word])
              for v in judge.verdicts(scenario, results)]
    return "\n".join(lines) + "\n"
