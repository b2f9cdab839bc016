from recbole_diffusion.testing import Case, contract

SMALL = {"embedding_size": 16, "num_heads": 2, "num_layers": 1, "denoiser_size": 16, "sampling_steps": 3}
LEARNING = {"embedding_size": 32, "denoiser_size": 64, "dropout": 0.0, "learning_rate": 0.005}

TestTinyDiffusion = contract(Case("tiny_diffusion.model:TinyDiffusion", SMALL, learning=LEARNING))
