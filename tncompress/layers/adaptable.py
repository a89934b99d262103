"""`quantize` and `enable_lora` of networks, as Keras's dense layers have them: the layer becomes another one."""


class Adaptable:
    """What `TNDense` and its kinds have besides: ways to become smaller in memory, or cheaper to train."""

    def __new__(cls, *args, **kwargs):
        layer = super().__new__(cls, *args, **kwargs)
        # Keras binds `quantize` to the object that was made, whose state another layer may have taken over since.
        layer.__dict__.pop("quantize", None)
        return layer

    def quantize(self, mode=None, type_check=True, config=None):
        """Store the cores as int8, see `TNInt8`; `model.quantize("int8")` asks every layer.

        Raises:
            NotImplementedError: another mode, settings of one's own, or a layer that cannot. `model.quantize` makes it
                a warning and goes on.
        """
        from tncompress.layers.quantized import quantize  # made of the layers that have this

        quantize(self, mode, config)

    def enable_lora(self, rank, lora_alpha=None, a_initializer="he_uniform", b_initializer="zeros"):
        """Freeze the cores and train a low-rank map beside them, see `TNLora`.

        Args:
            rank, lora_alpha, a_initializer, b_initializer: as in `keras.layers.Dense.enable_lora`.

        Raises:
            ValueError: the layer is not built, or cannot have one, or has one.
        """
        from tncompress.layers.lora import enable_lora

        enable_lora(self, rank, lora_alpha, a_initializer, b_initializer)
