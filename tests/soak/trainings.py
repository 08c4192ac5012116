"""The trainings that are killed at random moments: every method, and every task of ``ssl-lab finetune``."""

from soak.commands import CONVNET, KNN, TASK, Command

PRETRAIN = [
    "pretrain",
    "trainer=cpu",
    "trainer.max_epochs=4",
    "trainer.log_every_n_steps=1",
    "evaluate_every_n_epochs=2",
    "save_every_n_steps=7",
]
DIGITS = ["data=digits", "data.batch_size=128", *CONVNET]
HEAD = ["method.hidden_dim=16", "method.projection_dim=16"]
VIEWS = [*DIGITS, "views@method.views=digits", *HEAD, *KNN]
CROPS = ["data=shapes", "data.image_size=16", "data.num_train=640", "data.num_val=64", "data.num_test=64"]
CROPS += ["data.batch_size=64", "method.views.local_view.size=8", "method.num_prototypes=16", *HEAD, *CONVNET, *KNN]
CORPUS = ["data=text_files", "data.path=corpus", "data.vocab_size=120", "data.max_length=16", "data.batch_size=8"]
PAIRS = ["data=text_pairs", "data.path=pairs.csv", "data.vocab_size=120", "data.max_length=16", "data.batch_size=8"]
SAMPLES = ["~evaluation.few_label", "~evaluation.linear", "evaluation.samples.num_samples=64"]
VAE = [*DIGITS, "method.latent_dim=4", "method.decoder.width=8", "evaluation=vae", *SAMPLES]
CODES = ["pretrain", "experiment=vq_vae_digits", "trainer.max_epochs=1", "evaluation=none", "encoder.widths=[8,16]"]
CODES += ["method.decoder_dim=16"]
METHODS = {
    "simclr": [*VIEWS, "callbacks=online_probes", "pictures_every_n_epochs=1"],
    **{name: VIEWS for name in ("barlow_twins", "vicreg", "byol", "simsiam", "moco_v3", "supcon")},
    "moco_v2": [*VIEWS, "method.queue_size=512"],
    "nnclr": [*VIEWS, "method.queue_size=512", "method.predictor_hidden_dim=16"],
    "swav": [*CROPS, "method.queue_size=128"],
    "dino": CROPS,
    "mae": ["experiment=mae_digits", "data.batch_size=256", "encoder.embed_dim=16", "encoder.depth=2", *KNN]
    + ["encoder.num_heads=2", "method.decoder_dim=16", "method.decoder_depth=1", "method.decoder_num_heads=2"],
    "vae": [*VAE, "trainer.accumulate_grad_batches=4"],
    **{name: VAE for name in ("iwae", "beta_vae", "beta_tcvae")},
    "aae": [*DIGITS, "method.latent_dim=4", "method.decoder.width=8", "method.hidden_dim=32", *KNN],
    "vq_vae": ["experiment=vq_vae_digits", "data.batch_size=128", "encoder.widths=[8,16]", "method.decoder_dim=16", *KNN],
    "image_gpt": ["data=digits", "data.batch_size=256", "encoder=code_gpt_mini", "encoder.codes=run:codes"]
    + ["encoder.embed_dim=16", "encoder.depth=2", "encoder.num_heads=2", "evaluation=image_gpt"]
    + SAMPLES,
    "gan": ["experiment=gan_digits", "data.batch_size=128", "encoder.width=4", "method.generator.width=4", *SAMPLES],
    "mlm": [*CORPUS, "encoder=bert_tiny", "evaluation=mlm"],
    "causal_lm": [*CORPUS, "data.framing=causal", "encoder=gpt2_mini", "encoder.size=tiny", "evaluation=language_modelling"],
    "span_denoising": [*CORPUS, "encoder=t5_mini", "encoder.size=tiny", "evaluation=none"],
    "simcse": [*CORPUS, "encoder=bert_tiny", "evaluation=label_free"],
    "simcse_supervised": [*PAIRS, "data.score_column=score", "data.positive_score=4", "encoder=bert_tiny"]
    + ["evaluation=sts"],
    # Its cache knows files by the time of their last change, which copies of the template do not share.
    "clip": ["data=image_text_pairs", "data.path=../template_text/captions.csv", "data.image_size=null"]
    + ["data.vocab_size=60", "data.batch_size=8", "data.caption_column=caption", "encoder=dual"]
    + ["encoder@encoder.image=convnet", "encoder.image.widths=[4,8]", "encoder@encoder.text=bert_tiny"]
    + ["method.projection_dim=8", "evaluation=retrieval"],
}  # fmt: skip
FINETUNE = ["finetune", "run=null", "encoder=bert_tiny", "trainer=cpu", "trainer.max_epochs=4"]
FINETUNE += ["save_every_n_minutes=0.01", "data.max_length=32", "data.batch_size=8", "data.vocab_size=120"]
TASKS = {
    "classification": [*TASK[:3], "seeds=[0,1]", "select=best"],
    "image_classification": ["encoder=convnet", "encoder.widths=[4,8]", "data=digits", "data.label_fraction=0.5"]
    + ["method.mixup_alpha=0.8", "method.ema_decay=0.9", "~data.max_length", "~data.vocab_size"],
    "semantic_segmentation": ["encoder=convnet", "encoder.widths=[4,8]", "data=mask_folder"]
    + ["data.root=../template_text/masked", "method.head=fcn", "method.head_dim=4", "~data.max_length", "~data.vocab_size"],
    "similarity": ["data=text_pairs", "data.path=pairs.csv", "data.score_column=score"],
    "token_classification": ["data=token_labels", "data.path=tags.txt"],
    "question_answering": ["data=squad", "data.path=questions.json", "data.max_question_length=8"]
    + ["data.doc_stride=8"],
    "translation": ["data=parallel_text", "data.path=parallel", "data.source=en", "data.target=de"]
    + ["data.target_vocab_size=300", "method.num_decoder_layers=1"],
}  # fmt: skip
TRAININGS = [
    *(
        Command(
            name,
            [*PRETRAIN, f"method={name}", *settings, f"run_dir={name}"],
            needs=("text",),
            before=((*CODES, "run_dir=codes"),) if name == "image_gpt" else (),
        )
        for name, settings in METHODS.items()
    ),
    *(
        Command(f"finetune {name}", [*FINETUNE, f"task={name}", *settings, "run_dir=tuned"], needs=("text",))
        for name, settings in TASKS.items()
    ),
]
