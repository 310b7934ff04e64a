"""Every run as a point: total time and observed blackout, by gnuplot."""
import shutil
import subprocess

from versus import judge

SCRIPT = """
set terminal pngcairo size 1000,420 font "sans,10"
set output "{path}"
set multiplot layout 1,2
set grid ytics
set yrange [0:*]
set xrange [-0.5:{last}.5]
set key top right
set xtics ({tics})
set offsets 0, 0, graph 0.15, 0
"""


def _points(results, vmm, labels, metric, shift):
    lines = []
    for x, label in enumerate(labels):
        for run in judge.runs_of(results, vmm, label).values():
            lines.append(f"{x + shift} {metric.value(run)}")
    return "\n".join(lines or ["NaN NaN"]) + "\ne\n"


def write(path, results, labels):
    if not shutil.which("gnuplot"):
        raise RuntimeError("--plot needs gnuplot (Debian: apt install gnuplot-nox)")
    tics = ", ".join(f'"{label}" {x}' for x, label in enumerate(labels))
    script = SCRIPT.format(path=path, last=len(labels) - 1, tics=tics)
    for metric in (judge.TOTAL, judge.BLACKOUT):
        script += f'set title "{metric.name}, {metric.unit}"\n'
        script += 'plot "-" title "QEMU" pt 7 ps 1.2, "-" title "Godwit" pt 9 ps 1.4\n'
        script += _points(results, "qemu", labels, metric, -0.08)
        script += _points(results, "godwit", labels, metric, 0.08)
    subprocess.run(["gnuplot"], input=script, text=True, check=True, timeout=60)
