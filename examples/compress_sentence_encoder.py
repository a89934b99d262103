# %% [markdown]
# # Compress a sentence encoder
#
# A sentence encoder turns a text into a vector; texts that mean the same get vectors that point the same way. Here
# a small one is trained in some seconds, so that everything runs without downloads, and then compressed, checked,
# and saved. This page is `examples/compress_sentence_encoder.py`, a notebook as a script: run it, or open it with
# jupytext.
#
# With a trained encoder of your own, the first part is two lines, and the rest stays as it is:
#
# ```text
# encoder = bert_models.load("all-MiniLM-L6-v2")  # a Hugging Face folder
# tokenizer = bert_models.load_tokenizer("all-MiniLM-L6-v2")
# ```

# %%
import itertools
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

import bert_models
import tncompress

keras.utils.set_random_seed(0)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A small trained encoder
#
# Sentences of four topics, made of a few words each. The encoder learns to tell the topics apart by the mean of its
# last hidden states, and so gets vectors that are near for sentences of a topic.

# %%
TOPICS = {
    "animals": ("the a one my", "cat dog horse bird", "runs sleeps eats sits", "in the grass"),
    "weather": ("the a some more", "rain snow wind sun", "comes goes stays grows", "over the sea"),
    "kitchen": ("the a our your", "soup bread cake tea", "cooks burns cools smells", "on the stove"),
    "travel": ("the a this that", "train ship plane bus", "leaves arrives stops waits", "at the station"),
}
sentences, topics = [], []
for topic, parts in enumerate(TOPICS.values()):
    for words in itertools.product(*(part.split() for part in parts[:3])):
        sentences.append(" ".join((*words, parts[3])))
        topics.append(topic)
order = np.random.default_rng(0).permutation(len(sentences))
sentences, topics = [sentences[k] for k in order], np.array(topics)[order]
print(len(sentences), "sentences, for example:", sentences[0])

# %%
words = sorted({word for sentence in sentences for word in sentence.split()})
(folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]), encoding="utf-8")
tokenizer = bert_models.load_tokenizer(folder)
encoder = bert_models.build_encoder(
    bert_models.BertConfig(
        vocab_size=len(words) + 5, hidden_size=64, num_heads=4, num_layers=2, max_positions=16, init_stddev=0.1
    )
)


# %%
def sentence_embedding(outputs, batch):
    """The mean over tokens, of length one, [batch, hidden]."""
    counts = ops.cast(batch["input_mask"], "float32")[..., None]  # [batch, tokens, 1]
    return ops.normalize(ops.sum(outputs["sequence_output"] * counts, axis=1), axis=-1, order=2)


inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in encoder.input}
vectors = keras.layers.Lambda(lambda x: sentence_embedding({"sequence_output": x[0]}, {"input_mask": x[1]}))(
    [encoder(inputs)["sequence_output"], inputs["input_mask"]]
)
encoder.get_layer("pooler").trainable = False  # the sentence embedding does not use it
classifier = keras.Model(inputs, keras.layers.Dense(len(TOPICS), name="topic")(vectors))
classifier.compile(bert_models.AdamW(2e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
tokens = tokenizer(sentences)
classifier.fit(tokens, topics, batch_size=32, epochs=4, verbose=0)


# %% [markdown]
# How good is it? For every sentence the nearest other one should be of the same topic.


# %%
def embed(model):
    """Vectors of length one, [sentences, hidden]."""
    found = bert_models.embed(model, tokenizer, sentences)
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def same_topic(found):
    """Share of sentences whose nearest other sentence is of the same topic."""
    nearness = found @ found.T - 2 * np.eye(len(found))
    return float(np.mean(topics[nearness.argmax(axis=1)] == topics))


dense = embed(encoder)
print(f"dense: {encoder.count_params():,} parameters, nearest sentence of the same topic: {same_topic(dense):.0%}")

# %% [markdown]
# ## Compress it
#
# The feed-forward layers and the projections of attention keep 4 % of their parameters under one budget.
# `calibration` is text as the model will see it, `objective` what matters about the outputs. (So little is enough
# because four topics are a simple matter. For real encoders begin with half.) The pooler is left alone: the
# sentence embedding does not use it.

# %%
small = tncompress.replace_dense(
    encoder,
    keep=0.04,
    form=("narrow", "low_rank"),
    exclude="pooler",
    calibration=[tokens],
    objective=sentence_embedding,
    progress=False,
)
report = tncompress.report(small)
print(report.totals())

# %%
compressed = embed(small)
print(f"nearest sentence of the same topic: {same_topic(compressed):.0%}")
print(f"mean cosine to the dense model's vectors: {np.mean(np.sum(dense * compressed, axis=1)):.3f}")

# %% [markdown]
# ## Win something back
#
# Some seconds of distillation: the small model learns to give what the original gives. No labels are used.

# %%
batches = [tokenizer(sentences[k : k + 32]) for k in range(0, len(sentences), 32)]
recovered = tncompress.recover(
    small, encoder, batches, objective=sentence_embedding, learning_rate=1e-3, epochs=4, progress=False
)
print(f"mean cosine after recovery: {np.mean(np.sum(dense * embed(recovered), axis=1)):.3f}")

# %% [markdown]
# ## Look, save, use
#
# The page shows where the parameters went; open it in a browser. The saved model loads in safe mode.

# %%
tncompress.report(recovered).save_html(folder / "report.html")
recovered.save(folder / "small.keras")
again = tncompress.load(folder / "small.keras")
print("loaded again, the same:", bool(np.allclose(embed(again), embed(recovered), atol=1e-5)))
