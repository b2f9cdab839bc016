"""What the help of each verb says below its arguments."""

COMPARE = """\
settings:
  --key=value                  for every run; it is an error if one of the models does not have this setting
  --MODEL.key=value            for one model of --models, e.g. --DiffDiv.num_channels=8; MODEL:paper.key for a preset
  Files of --config_files have lines such as 'epochs: 20' or 'DiffDiv.num_channels: 8'. 'run --help' shows the main
  settings.

All models on a data set must have the same metrics, topk, eval_args, mask_history and data filters.

files that are written:
  DIR/report.html              tables and figures in one file; updated after each run
  DIR/results.md, results.csv  means and deviations, tests against the baseline, cost, protocol; updated after each run
  DIR/figures/DATASET-NAME.png the figures of the report, with --png
  DIR/runs/DATASET/MODEL/      seedK.json (result), seedK.npz (metrics of each user), seedK.log
  DIR/saved, log, log_tensorboard

You can stop it with Ctrl-C, and continue with the same command: finished runs are kept. To make several runs at the
same time, start the same command several times: the processes share the runs of DIR. It is an error if DIR has a
finished run with other settings.
Exit status 1: some runs failed; 2: the command is wrong; 130: it was stopped.
"""


TUNE = """\
  --key=value and --config_files give settings that are the same in every trial. The search space is a YAML file:
    learning_rate: {low: 1e-4, high: 1e-2, log: true}
    num_layers: {low: 1, high: 3}
    dropout: [0.1, 0.3, 0.5]
  The same command continues a study. Several processes can share a study if they have the same --out or --storage.
  The test split is not read: 'run --config_files OUT/best.yaml' tests the best settings.
"""


RECOMMEND = """\
  The checkpoint is all that is needed: it contains titles, categories and the interactions of the users. --key=value
  gives settings of generation (sampling_steps, num_channels, eval_seed, ...), mmr_weight, and of speed and place.
  A .jsonl file of histories has lines {"user": "u7", "items": ["i3", "i9"]}, the oldest item first.
  The lists have the columns user, item, rank, score, title (if known) and by: model, or popularity for users of whom
  the model knows nothing.
"""


EVALUATE = """\
  The data set is read from where the run found it, or from --data_path. --key=value gives settings of evaluation
  (metrics, topk, ...), generation (sampling_steps, num_channels, eval_seed, ...), speed and place. Without any, the
  figures are those of the run.
"""
