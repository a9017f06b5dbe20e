"""Which kernels a forward on a GPU spends its time in, by Nsight Compute: a table, the longest first.

    kernels.py COMMAND..

The command is run once under `ncu`; its first forward, which is not yet recorded, is what is counted.
"""

import csv
import re
import subprocess
import sys
from collections import defaultdict

LAUNCHES = 4000


def main():
    ncu = ["ncu", "--csv", "--metrics", "gpu__time_duration.sum", "--clock-control", "none", "--launch-count", str(LAUNCHES)]
    output = subprocess.run([*ncu, *sys.argv[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout
    lines = output.splitlines()
    start = next((index for index, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise SystemExit("ncu gave no table")
    spent = defaultdict(list)
    for row in csv.DictReader(lines[start:]):
        name = re.sub(r"<.*|\(.*", "", row["Kernel Name"])
        microseconds = float(row["Metric Value"].replace(",", "")) / (1 if row["Metric Unit"] in ("us", "usecond") else 1e3)
        spent[name].append(microseconds)
    total = sum(map(sum, spent.values()))
    print(f"{sum(map(len, spent.values()))} launches, {total / 1e3:.2f} ms of the device\n")
    print("| kernel | launches | us each | ms in all |\n|---|---|---|---|")
    for name, times in sorted(spent.items(), key=lambda item: -sum(item[1]))[:30]:
        print(f"| {name} | {len(times)} | {sum(times) / len(times):.1f} | {sum(times) / 1e3:.3f} |")


if __name__ == "__main__":
    main()
