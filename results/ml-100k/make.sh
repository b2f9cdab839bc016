#!/usr/bin/env bash
# The ml-100k leaderboard, from the searches to the report. Stop it at any time: the same command goes on.
#
#     results/ml-100k/make.sh [SECONDS]
#
# Each trained model is tuned for SECONDS (default 900) of training and validation on one core, by validation alone;
# ItemKNN and EASE, which take a second to fit, for 40 trials. Then each model is trained with its best setting and three
# seeds, and tested: diffusion models once with each of three seeds of generation. Two searches, and then two runs, are
# under way at any time, each with one thread. Items already seen are not recommended again, whatever the model: a film is
# rated once. RecBole's sequential models draw random prefixes of each user an epoch, ten, or for BERT4Rec, which learns
# from every item it masks, four: all would take minutes an epoch. Their batches are smaller than RecBole's 2,048, which
# would be a handful of steps an epoch.
#
# Needs this package in the active environment, kaleido, and Chrome or Chromium. Leaves tune/, runs/, figures/, report.html,
# results.md and results.csv here; what is here already is kept, so remove tune/ and runs/ to make it all anew.
set -euo pipefail
export OMP_NUM_THREADS=1
cd "$(dirname "$0")"
python -c 'import kaleido' # before the hours that go before the figures
export seconds=${1:-900}

tune() {
    local model=$1 extra=()
    case $model in
        GRU4Rec | SASRec) extra=(--prefixes_per_user=10 --train_batch_size=256) ;;
        BERT4Rec) extra=(--prefixes_per_user=4 --train_batch_size=64) ;;
        ItemKNN | EASE) extra=(--trials=40) ;;
    esac
    recbole-diffusion tune --model="$model" --dataset=ml-100k --seconds="$seconds" --mask_history=True "${extra[@]}" \
        2>&1 | sed -u "s/^/$model: /"
}
export -f tune
models=(DiffRec DreamRec DiffuRec DiffDiv ADIGRec WindowSASRec SASRec BERT4Rec GRU4Rec BPR EASE ItemKNN)
printf '%s\n' "${models[@]}" | xargs -P 2 -I {} bash -euo pipefail -c 'tune "$1"' _ {}

names=$(IFS=,; echo "${models[*]}")
printf '%s\n' 1 2 | xargs -P 2 -I {} \
    recbole-diffusion compare --models="$names,Pop" --datasets=ml-100k --seeds=0,1,2 --eval_seeds=0,1,2 --baseline=WindowSASRec \
    --tuned=tune --mask_history=True --curve_steps=1,2,4,8,16 --png --out=. --topk='[10, 20]' \
    --metrics='[Hit, NDCG, MRR, ILD, EmbeddingILD, CategoryCoverage, ItemCoverage, GiniIndex, Novelty, AveragePopularity]'
