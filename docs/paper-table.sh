#!/usr/bin/env bash
# The MUNIT paper's comparison on the default data: trains each row for the same number of steps and images,
# then measures all rows in the same way. It can be stopped and restarted at any time: finished rows are kept,
# the interrupted one resumes from its checkpoint, and existing measurements are not repeated.
#
#     bash docs/paper-table.sh [FOLDER]      # runs/table if not given
set -euo pipefail

folder=${1:-runs/table}
rows=(unit cyclegan-noise munit-no-image-recon munit-no-content-recon munit-no-style-recon munit bicyclegan)

mkdir -p "$folder"
for row in "${rows[@]}"; do
    run=$folder/$row
    if [ -e "$run/done" ]; then
        echo "$run is done"
        continue
    fi
    if compgen -G "$run/checkpoints/step-*" >/dev/null; then
        i2ikit resume "$run"
    else
        rm -rf "$run"
        i2ikit run "$row" --out "$run"
    fi
    touch "$run/done"
done
i2ikit compare "${rows[@]/#/$folder/}" --out "$folder/table.md"
