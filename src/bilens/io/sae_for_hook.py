"""Whether a sparse autoencoder belongs to a hook point of a model."""

from __future__ import annotations

from bilens.base.errors import UsageError
from bilens.io.load import LoadedModel
from bilens.nn.hooks import hook_layer
from bilens.nn.topk_sae import TopKSAE
from bilens.nn.transformer import BilinearTransformer


def sae_for_hook(loaded: LoadedModel, model: LoadedModel, hook: str) -> TopKSAE:
    """Return a loaded autoencoder in the units of a hook point, if it belongs there.

    What its file does not say is not checked: autoencoders of other libraries do not carry the
    hash of their model, and some not their hook point.

    Args:
        loaded: the autoencoder, from `bl.load`.
        model: the language model, from `bl.load`.
        hook: where the autoencoder is to stand.

    Raises:
        UsageError: If it is no autoencoder, has another width, or says that it was trained at
            another hook point or on another model; or if the model has no such hook point.
    """
    sae, transformer = loaded.whole("a trace"), model.whole("a trace")
    if not isinstance(sae, TopKSAE):
        raise UsageError(
            f"{loaded.source} holds a {type(sae).__name__}; expected a sparse autoencoder, for "
            "example one that `bilens train sae` wrote."
        )
    if not isinstance(transformer, BilinearTransformer):
        raise UsageError(
            f"{model.source} holds a {type(transformer).__name__}; expected a language model, for "
            "example one that `bilens train language` wrote."
        )
    hook_layer(hook, transformer.config.n_layer)
    if sae.d_in != transformer.config.d_model:
        raise UsageError(
            f"{loaded.source} has width {sae.d_in}, and {hook} of {model.source} has width "
            f"{transformer.config.d_model}: pass the autoencoder that was trained on this model."
        )
    trained_at = loaded.provenance.get("hook", hook)
    if trained_at != hook:
        raise UsageError(
            f"{loaded.source} was trained at {trained_at}; {hook} was expected: pass the "
            "autoencoder of that hook point."
        )
    trained_on = loaded.provenance.get("model_sha256", model.weights_sha256)
    if trained_on != model.weights_sha256:
        raise UsageError(
            f"{loaded.source} was trained on another model ({loaded.provenance.get('model')}, with "
            f"other weights than {model.source}): pass the model that it belongs to, or train it "
            "again."
        )
    return sae.folded()
