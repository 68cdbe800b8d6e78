"""Every verb of seral: what is run with one options model, by `seral COMMAND`, by its job file, or on a cluster.

A module of this package is a verb that needs most of the others: the demonstration, the doctor.
"""

from __future__ import annotations

from seral.process.ending import stoppable
from seral.verbs.verb import Verb, file_of

__all__ = ["VERBS", "Verb", "file_of", "run_verb"]


def run_verb(name: str) -> None:
    """The command line of a verb's job file: `[--config FILE.yaml] [key=value ...]`."""
    with stoppable():
        from seral.options import run_job

        verb = VERBS[name]
        run_job(verb.options_model(), verb.call, verb.help, verb.name)


VERBS: dict[str, Verb] = {
    "pool-import": Verb(
        name="pool-import",
        command="pool import",
        options="seral.pool.options:ImportOptions",
        function="seral.pool.ingest:import_corpus",
        plan="seral.verbs.plans:plan_import",
        help="Import a corpus into a pool.",
        about="""Run it again after an interruption: it goes on where it stopped. Files that cannot be used end in the
pool's quarantine with the reason; they never stop the import. What a reader takes besides the folder stands behind its
name in brackets: `--set reader_options.NAME=VALUE`.

Example: `seral pool import emodb ~/corpora/emodb --out data/pool`""",
    ),
    "features-import": Verb(
        name="features-import",
        command="pool import-features",
        options="seral.features.options:ImportFeaturesOptions",
        function="seral.features.ingest:import_features",
        help="Bring in features of a pool that were computed elsewhere: a folder that is an encoder for heads.",
        about="""A row is an utterance, by its id, path or file name. One column holds its features: `embedding` (D
numbers), `mean` with or without `std` (D numbers, or L lists of D), or `frames` (T lists of D). See docs/encoders.md.

Example: `seral pool import-features TABLE.parquet --pool data/pool --made-by iic/emotion2vec_base --out data/e2v`""",
        job=False,
    ),
    "cut": Verb(
        name="cut",
        command="pool cut",
        options="seral.pool.options:CutOptions",
        function="seral.pool.cut:cut_recordings",
        help="Find the utterances of long recordings: where each begins and ends and, where asked, who speaks.",
        about="""No audio is copied. Import the list, whose audio lies elsewhere, with
`seral pool import manifest OUT --out POOL --allow-outside`. Run it again after an interruption: it goes on. With
`--set clip_s=5` it cuts clips of one length instead, for the reader `folder`.

Calls with a party in each channel: `seral pool cut calls/ --out parties --set channel=apart`

Speakers by their voices, which is a guess: `seral pool cut talks/ --out turns --set speakers=recording`. It errs less
with `--set voices=ge2e` after `pip install --no-deps resemblyzer`, and with `--set speaker_count=2` where it is known.

Example: `seral pool cut recordings/ --out calls --set max_s=10`""",
    ),
    "audit": Verb(
        name="audit",
        command="pool audit",
        options="seral.pool.audit:AuditOptions",
        function="seral.pool.audit:audit_corpus",
        help="Count what a corpus folder holds: labels without audio, audio without label, conflicts, what is missing.",
        about="""No audio is decoded. A copy that looks complete but has another count than the release is remarked
upon.

Example: `seral pool audit crema-d ~/corpora/CREMA-D --set reader_options.labels=voice --out crema-d.json`""",
        job=False,
    ),
    "guess": Verb(
        name="guess",
        command="pool guess",
        options="seral.pool.guess:GuessOptions",
        function="seral.pool.guess:guess_corpus",
        help="Look at a folder or a table, and propose how to import it: reader, pattern, columns, the command.",
        about="""No audio is decoded. What it proposes it has tried: the counts by speaker, class and language are those
that the import would have. Corpora that have a reader are known by their file names, whatever the folder is called.

Example: `seral pool guess ~/corpora/calls`""",
        job=False,
    ),
    "screen": Verb(
        name="screen",
        command="pool screen",
        options="seral.features.options:ScreenOptions",
        function="seral.features.screen:screen_pool",
        help="Find near-duplicates, and utterances far from all others, by the features of an encoder.",
        about="""The table is kept in POOL/screen, and runs that begin afterwards keep such a pair in one part of a
fold; `split.near_duplicates: []` in a run does not.

Example: `seral pool screen data/pool --set similarity=0.97`""",
    ),
    "degrade": Verb(
        name="degrade",
        command="pool degrade",
        options="seral.pool.options:DegradeOptions",
        function="seral.pool.degrade:degrade_pool",
        help="Make a noisy variant of a pool for studies: rooms, noise, level, band, codec; the ids stay the same.",
        about="Example: `seral pool degrade data/pool --out data/noisy --set noise=data/noises --set snr_db=[5,15]`",
    ),
    "erase": Verb(
        name="erase",
        command="pool erase",
        options="seral.erase.erase:EraseOptions",
        function="seral.erase.erase:erase",
        help="Erase one speaker or one utterance from a pool, and from the runs, caches and predictions made of it.",
        about="""Audio, features, gold labels and votes go; in runs, picks, labels and predictions. What stays is a
tombstone in POOL/erased/: when, how many rows of which tables, and salted hashes, by which imports keep the erased out.
Models that learnt from it are named, since weights cannot be unlearned. Interrupted, or with another run to clear: give
the same command again. See docs/pools.md.

Example: `seral pool erase data/pool --speaker emodb/03 --run runs/mine`""",
        job=False,
    ),
    "pool-export": Verb(
        name="pool-export",
        command="pool export",
        options="seral.exports.options:ExportOptions",
        function="seral.exports.export:export_pool",
        help="Write the clips of a pool with labels, votes and splits in a format of other tools.",
        about="""Formats: hf (save_to_disk), webdataset, lhotse, kaldi, audformat, audiofolder. Gold labels and raters'
votes go along, or with --labels what a run has bought. What was erased from the pool is never in it.

Example: `seral pool export data/pool --format lhotse --out exports/pool-lhotse`""",
    ),
    "generate": Verb(
        name="generate",
        command="pool generate",
        options="seral.synthesis.generate:GenerateOptions",
        function="seral.synthesis.generate:generate",
        help="Generate a demonstration corpus: several languages and speakers, four emotions, noise, junk.",
        about="""For trying out and for tests, never for claims. Import it with `seral pool import manifest OUT --out
POOL`.

Example: `seral pool generate data/demo-corpus --set utterances=120`""",
        job=False,
    ),
    "features": Verb(
        name="features",
        options="seral.features.options:ExtractOptions",
        function="seral.features.extract:extract",
        help="Compute and cache the features that an encoder makes of a pool.",
        about="""Run it again: it computes what is missing. Runs on the pool find the features there.

Example: `seral features data/pool --encoder facebook/hubert-base-ls960 --set cluster.use_gpu=true`""",
    ),
    "loop": Verb(
        name="loop",
        command="loop run",
        options="seral.loop.options:LoopOptions",
        function="seral.loop.loop:run_loop",
        plan="seral.verbs.plans:plan_loop",
        help="Run the main job: features, then rounds of select, label, train and score, beside a random arm.",
        about="""Run it again after an interruption: it resumes after the last complete round and ends in the same
numbers. With `people` in the configuration it ends with status 75 when it awaits their labels; run again, it goes on.

Example: `seral loop run jobs/configs/emodb-lora.yaml --set seeds=[0]`""",
    ),
    "pretrain": Verb(
        name="pretrain",
        options="seral.pretraining.options:TaptJobOptions",
        function="seral.pretraining.tapt:pretrain",
        plan="seral.verbs.plans:plan_pretrain",
        help="Adapt an encoder to the speech of a pool without labels (TAPT).",
        about="""Run it again: it goes on where it stopped. The objective is contrastive for wav2vec
2.0, masked prediction of clusters for all others, or `tapt.objective`. `tapt.json` and `tapt.png` show how it went.
`--set fold=0` hears the training part of a fold only.

Example: `seral pretrain data/pool --encoder facebook/hubert-base-ls960 --run runs/tapt --set tapt.steps=500`""",
    ),
    "distil": Verb(
        name="distil",
        options="seral.pretraining.options:DistilOptions",
        function="seral.pretraining.distillation:distil",
        help="Make a small encoder from a large one (DistilHuBERT).",
        about="""Run it again: it goes on where it stopped. The student learns what the teacher makes of the speech,
layer by layer. `distil.json` and `distil.png` show how it went, `seral layers probe` what the student is worth.

Example: `seral distil data/pool --teacher microsoft/wavlm-base-plus --layers 4 --run runs/student`""",
    ),
    "adapt": Verb(
        name="adapt",
        options="seral.training.options:AdaptOptions",
        function="seral.training.adaptation:run_adapt",
        help="Adapt an encoder to emotions by labels of other corpora, for a pool that it has not heard.",
        about="""Adapters learn from batches of one corpus each and are merged into the weights: RUN/encoder stands
wherever an `encoder` may. What that is worth is said by leaving out one corpus at a time. A loop, a training or a
transfer on clips that it has learnt from, or on their speakers, is refused. Run it again: it goes on where it stopped.

Example: `seral adapt jobs/configs/adapt-emodb.yaml`""",
    ),
    "transfer": Verb(
        name="transfer",
        options="seral.training.options:TransferOptions",
        function="seral.training.transfer:run_transfer",
        help="Carry labels of other corpora over to a pool that has none: a model, its predictions, what to expect.",
        about="""Every corpus is brought to the mean and the spread of the pool, and no label of the pool is read. What
the model may be worth is said by leaving out one of the labelled corpora at a time. The run is a `prior` for `seral
loop run`, and `seral predict RUN` takes its model.

Example: `seral transfer jobs/configs/transfer-emodb.yaml`""",
    ),
    "train": Verb(
        name="train",
        options="seral.training.options:SupervisedOptions",
        function="seral.training.supervised:run_train",
        plan="seral.verbs.plans:plan_train",
        help="Train on all labels of a pool: a model for every fold and seed, tested on speakers it has not heard.",
        about="""The options are those of `seral loop run` without strategy and budget. A training that is run again
computes what is missing; `seral predict RUN` takes its model with the best dev score.

Example: `seral train run.yaml --set finetune.adapter=lora --set folds=[0]`""",
    ),
    "fit": Verb(
        name="fit",
        options="seral.models.options:FinalOptions",
        function="seral.models.fit:fit_final",
        plan="seral.verbs.model_plans:plan_fit",
        help="Fit the final model of a run, of all labels that were bought in it, and write its model card.",
        about="""The run is one of `seral loop run`, come to its end or not, or of `seral train`. What its folds chose
is taken over, and what they said of speakers they had not heard is what the card expects of the final model. Run it
again when there are more labels: it fits anew.

Example: `seral fit runs/emodb --out models/emodb`""",
    ),
    "ensemble": Verb(
        name="ensemble",
        options="seral.models.options:EnsembleOptions",
        function="seral.models.ensemble:run_ensemble",
        help="Join the models of several runs: the mean of their calibrated probabilities, or a classifier on them.",
        about="""The runs are about the same pool, classes and folds, with other encoders, adapters, texts or seeds. The
table says what each is worth on speakers that it had not heard, and what they are together; temperatures and classifier
are chosen on other folds than they are judged on. `seral predict FOLDER` predicts with all of them.

Example: `seral ensemble runs/whisper runs/moonshine --out runs/both`""",
    ),
    "compare": Verb(
        name="compare",
        options="seral.studies.options:CompareOptions",
        function="seral.studies.compare:run_compare",
        help="Compare variants of training (adapters, pretraining, shares of the labels) on the same folds and seeds.",
        about="""Prints the table and writes it to the run folder as Markdown and CSV. Run it again: it goes on where it
stopped.

Example: `seral compare jobs/configs/adapters-emodb.yaml --set seeds=[0]`""",
    ),
    "two-stage": Verb(
        name="two-stage",
        options="seral.studies.options:TwoStageOptions",
        function="seral.studies.two_stage:run_two_stage",
        help="Adapt from acted to natural speech in two stages, beside source only, target only and joint training.",
        about="Example: `seral two-stage jobs/configs/two-stage-urdu.yaml`",
    ),
    "relevance": Verb(
        name="relevance",
        command="layers relevance",
        options="seral.studies.layer_options:RelevanceOptions",
        function="seral.studies.layer_relevance:run_relevance",
        help="Measure what every hidden state tells of emotions: learned weights, single states, truncated encoders.",
        about="""Prints the centres of mass; `relevance.png` and `relevance.csv` in the run folder show the layers.

Example: `seral layers relevance jobs/configs/relevance-whisper.yaml --set corpora=[emodb]`""",
    ),
    "probe": Verb(
        name="probe",
        command="layers probe",
        options="seral.studies.layer_options:ProbeOptions",
        function="seral.studies.layer_probe:probe_layers",
        help="Compare encoders by a linear probe of every hidden state on unseen speakers, beside log-mel statistics.",
        about="""Prints UAR, size and speed of each encoder and of its network with untrained weights.

Example: `seral layers probe data/pool --classes anger,neutral,sadness --encoder runs/student/encoder --run runs/p`""",
    ),
    "similarity": Verb(
        name="similarity",
        command="layers similarity",
        options="seral.studies.layer_options:SimilarityOptions",
        function="seral.studies.layer_similarity:compare_layers",
        help="Measure how alike every hidden state is in the languages (or corpora) of a pool, label-free by default.",
        about="""Prints the similarities, larger is more alike; `similarity.png` is a heat map, `similarity.csv` the
table.

Example: `seral layers similarity data/pool --run runs/similarity --set by=corpus --set measures=[coral,mmd]`""",
    ),
    "layer-transfer": Verb(
        name="layer-transfer",
        command="layers transfer",
        options="seral.studies.layer_options:LayerTransferOptions",
        function="seral.studies.layer_transfer:run_layer_transfer",
        help="Train on a labelled language for an unlabelled one, aligned in the layers that are alike in both.",
        about="""Prints UAR of every anchor set for every pair of languages, beside source only and the target's own
labels.

Example: `seral layers transfer jobs/configs/anchors-whisper.yaml --set groups=[en,de]`""",
    ),
    # The job file of a verb called `select` would shadow Python's module of that name for every job beside it.
    "select-batch": Verb(
        name="select-batch",
        command="select",
        options="seral.selection.options:BatchOptions",
        function="seral.selection.batch:run_batch",
        help="Pick what to label next from Parquet files, on one machine or many, outside a loop.",
        about="""The picks do not depend on the order of the files, nor on how many parts they are kept in, but for
strategies that cluster the whole pool (`seral strategies` lists which): in parts, theirs are merged, and `exact` says
so.

Example: `seral select features/ --predictions p.parquet --strategy badge --count 500 --out picks.parquet --set
'strategy.wrappers=[{name: quota, by: speaker, share: 0.05}]' --metadata data/pool/utterances`""",
    ),
    "compare-strategies": Verb(
        name="compare-strategies",
        options="seral.studies.options:StrategyStudyOptions",
        function="seral.studies.strategies:run_strategy_study",
        help="Draw learning curves of every strategy on frozen features, many seeds, on clean speech or with junk.",
        about="""Prints UAR at every budget and the gain on random choice. Run it again: it goes on where it stopped.

Example: `seral compare-strategies jobs/configs/strategies.yaml --set corpora=[emodb]`""",
    ),
    "strategy-survey": Verb(
        name="strategy-survey",
        options="seral.studies.options:StrategySurveyOptions",
        function="seral.studies.survey:run_strategy_survey",
        help="Compare every strategy on many pools and encoders, clean and with junk, and sum up which to take when.",
        about="""Run it again: it goes on where it stopped.

Example: `seral strategy-survey jobs/configs/strategy-survey.yaml`""",
    ),
    "label-study": Verb(
        name="label-study",
        command="study labels",
        options="seral.studies.options:LabelStudyOptions",
        function="seral.studies.labels:run_label_study",
        help="Measure how many labels each way of learning needs, on every corpus by the labels of all others.",
        about="""Strategies beside random, with and without the labels of the other corpora, speakers' means taken away
or not: a loop each, with speakers dealt anew, done once and resumed. `summary.md` has UAR at every budget, areas beside
random with intervals over speakers, and the labels that random's UAR at 20 % takes.

Example: `seral study labels jobs/configs/labels.yaml --set deals=[0]`""",
    ),
    "sweep": Verb(
        name="sweep",
        command="sweep run",
        options="seral.sweep.plan:SweepOptions",
        function="seral.sweep.run:run_sweep",
        plan="seral.verbs.plans:plan_sweep",
        help="Try points of a space of options side by side, stop the worse ones early, and test the best.",
        about="""Run it again after a kill: it resumes.

Example: `seral sweep run jobs/configs/sweep-heads.yaml --set trials=50`""",
    ),
    "predict": Verb(
        name="predict",
        options="seral.models.options:PredictOptions",
        function="seral.models.predict:predict",
        plan="seral.verbs.model_plans:plan_predict",
        help="Predict emotions with the model of a run, for a whole pool or for files.",
        about="""Files that cannot be read are named and get a row with an error instead of a prediction.

Example: `seral predict runs/emodb data/pool --out predictions.parquet`""",
    ),
    "export": Verb(
        name="export",
        options="seral.models.options:ExportOptions",
        function="seral.models.export:export_model",
        plan="seral.verbs.model_plans:plan_export",
        help="Write the model of a run in a format that is loaded without seral: hf, peft, onnx or torch-export.",
        about="""Example: `seral export runs/emodb --format hf --out exports/emodb`""",
    ),
    "report": Verb(
        name="report",
        options="seral.report.options:ReportOptions",
        function="seral.report.report:report_run",
        help="Write the report of a run: one HTML file, with the figures as PNG and the tables as CSV beside it.",
        about="""Further runs are compared with the first one: paired differences on the folds, seeds and labels that
they share. `--set svg=true` writes every figure as SVG too, `--set audio_mb=0` leaves all voices out.

Example: `seral report runs/emodb`, and `seral report runs/emodb runs/emodb-lora`""",
    ),
}
"""One record a verb. A new one is a record here and, where it may be a cluster job, its file in jobs/."""
