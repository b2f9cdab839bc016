"""The settings of our models, and those of RecBole's models that need a role other than the default."""

from __future__ import annotations

from recbole_diffusion.config.row import (
    Part,
    Role,
    derived,
    flag,
    from_zero,
    number,
    one_of,
    other,
    path,
    section,
    share,
    whole,
)  # fmt: skip

# Larger values are mistakes: a run with them fills the memory, or takes hours to build, before anyone sees a number.
_MOST_STEPS, _WIDEST, _DEEPEST, _MOST_DRAWS = 1_000_000, 65_536, 1000, 10_000_000

_SCHEDULES = ("linear", "scaled_linear", "truncated_linear", "cosine", "truncated_cosine", "sqrt", "exp", "binomial")
_OF_VARIANCES = "of linear_variance; ~ with any other schedule"

_NETWORK = section(Role.RESULT, Part.NETWORK, {
    "timesteps": whole("T, the steps of noise", high=_MOST_STEPS, main=True),
    "ablate": one_of(
        ("state", "noise"), "for studies: what is 0 in training and generation, x_t or the noise; ~ is neither",
        optional=True,
    ),
    "process": one_of(
        ("gaussian", "straight"),
        "gaussian: noise by noise_schedule; straight: x_t is on the line from x_0 to the noise, with noise_schedule=~ "
        "and sampler=euler or euler_start; replacement: an item is kept or replaced by another, with sampler=bayes",
        of={"PreferGrow": ("replacement",)},
    ),
    "noise_schedule": one_of(
        _SCHEDULES, "how the noise grows over the steps", optional=True, required_by=("DiffRec",),
        of={"DiffRec": (*_SCHEDULES, "linear_variance")}, main=True,
    ),
    "beta_start": number("first beta of linear; ~ is 1e-4", above=0, below=1, optional=True),
    "beta_end": number("last beta of linear; ~ is 0.02", above=0, below=1, optional=True),
    "noise_scale": number(f"factor of both variances {_OF_VARIANCES}", above=0, optional=True),
    "noise_min": from_zero(f"variance at the first step {_OF_VARIANCES}", optional=True),
    "noise_max": number(f"variance at the last step {_OF_VARIANCES}", above=0, optional=True),
    "first_beta": number(
        "first beta of linear_variance; ~ takes it from noise_min", above=0, below=1, optional=True,
    ),
    # ADIGRec scales x_t to length 1, so x0 cannot be computed from eps or v. PreferDiff compares x0_hat to items.
    "prediction": one_of(
        ("x0", "eps", "v"), "what the denoiser predicts",
        of={"ADIGRec": ("x0",), "DiffRec": ("x0", "eps"), "FMRec": ("x0",), "PreferDiff": ("x0",),
            "PreferGrow": ("x0", "ratio")},
    ),
    "p_uncond": share("share of training rows without guidance"),
    "ce_temperature": number("divides the scores in the cross-entropy, and those of several chains", above=0),
    "embedding_size": whole("d, the size of an item's embedding", high=_WIDEST),
    "num_layers": whole("Transformer blocks", high=_DEEPEST),
    "num_heads": whole("attention heads"),
    "denoiser": one_of(("mlp1", "mlp2"), "mlp1: one linear layer; mlp2: two, with GELU between"),
    "denoiser_skip": flag(
        "add the guidance (ADIGRec: the dynamic interest G2) to the denoiser's output; only with prediction=x0"
    ),
    "encoder_input_norm": flag("layer norm of items and positions before the first Transformer block"),
    "num_interests": whole("k, the number of inherent interests", high=_WIDEST),
    "use_dynamic_interest": flag("the dynamic interest G2 is part of the guidance"),
    "use_ai2m": flag("x_t attends to the interests; False: all interests have the same weight"),
    "latent_size": whole("d', the size of z; ~ is embedding_size", high=_WIDEST, optional=True),
    "latent_residual": flag("mu = c + MLP(c) and psi(z) = z + MLP(z), instead of the MLPs alone; needs d' = d"),
    "item_share": from_zero("gamma, share of replacements that are items; the others are a state without item", high=1),
    "token_weight": from_zero("delta, weight of the noised item in what the denoiser reads"),
    "prior": one_of(
        ("noise", "history"), "where a path begins: standard normal noise, or a part of a random item of the history",
    ),
    "prior_keep": share("share of the item's coordinates that prior=history keeps; the others are 0"),
    "filter_weight": from_zero("alpha, the weight of the frequency filter beside attention", high=1),
    "low_frequencies": whole("c: the low part of the filter has c // 2 + 1 frequencies"),
    "time_bias": flag("add a learned number for the time between two events to their attention"),
    "uncertainty": from_zero("delta: lambda_i is drawn from N(delta, delta)"),
    "use_position": flag("add learned position embeddings; the authors have none"),
    "time_aware": flag("newer items have more weight (T-DiffRec); False: each item has weight 1"),
    "w_min": number("weight of the oldest item with time_aware", above=0),
    "w_max": number("weight of the newest item with time_aware", above=0),
    "normalize": flag("scale each noised vector to length 1 before the network"),
    "hidden_size": whole("width of the hidden layer, or d of WindowSASRec", high=_WIDEST),
    "time_embedding_size": whole("size of the embedding of t", low=2, high=_WIDEST),
    "n_layers": whole("Transformer blocks", high=_DEEPEST),
    "n_heads": whole("attention heads"),
    "inner_size": whole("width of the feed-forward layers", high=_WIDEST),
    "hidden_act": one_of(("gelu", "relu", "swish", "tanh", "sigmoid"), "activation of the feed-forward layers"),
    "layer_norm_eps": number("number that layer norm adds to the variance", above=0),
    "initializer_range": number("standard deviation of all weights at the start", above=0),
    "loss_type": one_of(("CE",), "cross-entropy over the catalogue"),
})  # fmt: skip

_GENERATION = section(Role.GENERATION, None, {
    "sampler": one_of(
        ("ddpm", "ddim", "euler", "euler_start"), "rule for the steps of generation",
        of={"DiffRec": ("ddpm", "ddim"), "PreferGrow": ("bayes",)}, main=True,
    ),
    "sampling_steps": whole("steps of generation, at most T", main=True),
    "valid_sampling_steps": whole("sampling_steps in the validations of training; ~ is the same", optional=True),
    "eta": from_zero("noise of ddim: 0 is none, 1 is as in ddpm; must be 0 with other samplers", high=1),
    "variance": one_of(("small", "large", "none"), "variance of the noise of ddpm (ddim has eta)"),
    "guidance_strength": from_zero("w of classifier-free guidance"),
    "num_channels": whole(
        "L, channels per history; an item's score is the largest of the channels", high=_DEEPEST,
    ),
    "num_chains": whole(
        "chains per history (DiffDiv: in each channel); with several, an item's score is the logarithm of its mean "
        "probability", high=_DEEPEST,
    ),
    "chain_start": one_of(("noise", "zero"), "where a chain starts: at noise, or at 0, the mean of the noise"),
    "start_steps": whole("T', steps of noise added to the history before generation, at most T", low=0),
    "rescale_x0": flag("between steps, scale x0_hat to the mean norm of the items"),
    "eval_seed": whole("seed of the noise at generation", low=0, high=2**63 - 1, fixed=True, main=True),
})  # fmt: skip

_TRAINING = section(Role.RESULT, Part.TRAINING, {
    "train_on": one_of(
        ("windows", "prefixes"),
        "what a training row is: a window with a target at each position, a prefix with one target, or a user",
        of={"ADRec": ("windows",), "DiffuRec": ("prefixes",), "FMRec": ("prefixes",), "DiffRec": ("users", "prefixes")},
    ),
    "timestep_sampler": one_of(("uniform", "high_noise", "mode", "loss_second_moment"), "how training draws t"),
    "snr_weighting": flag("multiply the error at t by SNR(t-1) - SNR(t); only with prediction=x0"),
    "item_init_std": number("standard deviation of the item embeddings at the start", above=0),
    "stop_gradient_target": flag("the target x0 gets no gradient from the squared error"),
    "stop_gradient_latent": flag("c and sigma_c^2 are constants in the divergence"),
    "mse_weight": from_zero("weight of the squared error of the prediction (PreferDiff: lambda, of its cosine error)"),
    "ce_weight": from_zero("weight of the cross-entropy of x0_hat over the catalogue"),
    "reconstruction_weight": from_zero("beta, weight of the squared error of a decoder of the history"),
    "tied_decoder": flag(
        "the decoder ends in the item table; False: in weights of its own, items * 2,048, as the authors have it"
    ),
    "one_step_weight": from_zero("weight of the squared difference of x0_hat along the path and at its beginning"),
    "interest_weight": from_zero("weight of L_G1"),
    "penalty_weight": from_zero("weight of the covariance penalty L_reg"),
    "preference_weight": from_zero("weight of the preference of the target over the other targets' mean, 1 - lambda"),
    "preference_scale": number("gamma, the scale of the difference of two errors in the preference", above=0),
    "preference_of": one_of(
        ("row", "batch"), "row: each target has a preference; batch: the means of both errors have one, as in the "
        "authors' code",
    ),
    "catalogue_loss": one_of(
        ("softmax", "gbce"), "loss of the next item; gbce is gSASRec's, with uniform num_negatives",
    ),
    "num_negatives": whole(
        "negatives in the loss of the next item, at most the catalogue; shared by the batch; ~ is the whole catalogue",
        high=_MOST_DRAWS, optional=True,
    ),
    "negative_sampler": one_of(
        ("uniform", "popularity", "in_batch"),
        "how num_negatives are drawn, with log-Q correction; in_batch: among the batch's targets; ~ is uniform",
        optional=True,
    ),
    "gbce_t": from_zero(
        "t of gbce: 0 is plain binary cross-entropy, 1 is calibrated; ~ is 0.75", high=1, optional=True,
    ),
    "w_dagl": from_zero("weight of the latent loss"),
    "kl_weight": from_zero("weight of KL(q(z|c) || N(0, I)), summed over d', inside the latent loss"),
    "divergence": one_of(
        ("alpha", "beta", "gamma", "none"), "divergence of the latent loss; none is the squared error",
    ),
    "divergence_order": number("alpha (below 1), beta or gamma of the divergence", above=0),
    "divergence_variance": number(
        "sigma_c^2 in the divergence; ~ is the variance of q(z|c)", above=0, optional=True,
    ),
    "dropout": share("dropout of the network; in DiffRec, of the noised vector"),
    "embedding_dropout": share("dropout of the item embeddings"),
    "hidden_dropout_prob": from_zero("dropout of hidden states", high=1),
    "attn_dropout_prob": from_zero("dropout of attention weights", high=1),
})  # fmt: skip

_COURSE = section(Role.RESULT, Part.COURSE, {
    "pretrained_item_table": path(
        "checkpoint with the item table to start from, which is scaled to item_init_std", optional=True,
    ),
    "stages": other(
        "a list of stages, each with any of epochs, freeze and loss, or ~",
        "stages of training, e.g. [{epochs: 5, freeze: [encoder]}, {}]; ~ is one stage that trains everything",
        optional=True,
    ),
    "freeze_epochs": derived(
        "use stages, e.g. [{epochs: 10, freeze: [item_embedding]}, {}], with a pretrained_item_table"
    ),
})  # fmt: skip

OUR_MODELS_ROWS = {**_NETWORK, **_GENERATION, **_TRAINING, **_COURSE}

# RecBole's models take the weights of these files as they are.
RECBOLE_SOURCE_ROWS = section(Role.RESULT, Part.COURSE, {
    "pre_model_path": path("checkpoint of the previous stage of training (S3Rec, RaCT)"),
    "pretrain_path": path("checkpoint that NAIS starts from", optional=True),
    "mf_pretrain_path": path("checkpoint of NeuMF's matrix factorisation", optional=True),
    "mlp_pretrain_path": path("checkpoint of NeuMF's network", optional=True),
    "warm_up": path("checkpoint of KD_DAGFM's teacher or student"),
})  # fmt: skip

_RECBOLE_COURSE = section(Role.RESULT, Part.COURSE, {
    "pretrain_epochs": whole("epochs of a stage before finetune (S3Rec, RaCT)"),
    "save_step": whole("epochs between two checkpoints of such a stage"),
})  # fmt: skip

_RECBOLE_GENERATION = section(Role.GENERATION, None, {
    "sampling_noise": flag("noise in the steps of generation (RecBole's DiffRec and LDiffRec)"),
})  # fmt: skip

RECBOLE_MODELS_ROWS = {**RECBOLE_SOURCE_ROWS, **_RECBOLE_COURSE, **_RECBOLE_GENERATION}
