"""The encoders that the speed benchmarks compare: BERT-base, TN-BERT, and BERT-base with low-rank maps."""

import keras
from keras import ops

ERF_SCALE = 0.7071067811865476  # 1 / sqrt(2)
KINDS = ("dense", "TN-BERT", "low rank 128")


def encoder(kind: str, layers: int = 12, hidden: int = 768) -> keras.Model:
    """An encoder with random weights.

    Args:
        kind: `"dense"`: BERT-base; `"TN-BERT"`: its feed-forward parts by Expand/Condense; `"low rank 128"`: those and
            the four projections of attention of rank 128.
        layers, hidden: smaller ones for a try.
    """
    import bert_models
    import tncompress
    from tncompress.forms import low_rank

    sizes = {"num_layers": layers, "hidden_size": hidden, "num_heads": hidden // 64}
    if kind == "TN-BERT":
        return bert_models.build("tn_bert", **sizes)
    dense = bert_models.build_encoder(bert_models.BertConfig(activation="gelu_tanh", **sizes))
    if kind == "dense":
        return dense
    sites = [site for site in tncompress.find_sites(dense, exclude="pooler") if not site.reason]
    recipe = {
        site.path: {"form": "low_rank", "spec": low_rank.spec(site.in_dim, site.out_dim, 128).to_config()}
        for site in sites
    }
    return tncompress.replace_dense(dense, recipe=recipe, progress=False)


def with_plain_matmuls(model: keras.Model) -> keras.Model:
    """The same model with the projections of attention as matmuls: ONNX Runtime quantises those, but no Einsum."""
    import tncompress
    from tncompress.network.cost import dense_spec

    sites = [site for site in tncompress.find_sites(model, include="attention") if not site.reason]
    specs = {site.path: dense_spec(site.in_dim, site.out_dim).to_config() for site in sites}
    recipe = {path: {"form": None, "spec": spec} for path, spec in specs.items()}
    return tncompress.replace_dense(model, recipe=recipe, progress=False) if recipe else model


def erf_gelu(x):
    """GELU in the operations from which other engines recognise it: Keras's own has one that ONNX lacks."""
    return 0.5 * x * (1.0 + ops.erf(x * ERF_SCALE))
