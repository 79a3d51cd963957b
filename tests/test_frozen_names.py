"""Public names and signatures that others rely on: to break one is a decision, made here."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import bilens
from bilens.io.load import LayerView, LoadedModel
from bilens.nn.agreement import Agreement


def names_of(text: str) -> list[str]:
    return text.split(", ")


# Names may be added; none may be renamed or removed.
PUBLIC = names_of(
    "Activation, ApproximateMoments, AttackOptions, AttackReport, AttentionHead, AuditOptions, "
    "AuditReport, "
    "BilinearAttention, "
    "BilinearTensor, CPDecomposition, CPOptions, CertificateReport, CertifyOptions, "
    "Contributions, ConversionReport, ConvertNetworkOptions, DirectInteractions, DualExpression, "
    "EigenDecomposition, EigenOptions, EigenPlan, EigenvectorMatch, FitScores, GLUWeights, "
    "GaussianMoments, HOSVD, History, ImageDataset, InteractionChance, InteractionMatrix, "
    "InteractionOptions, MLPWeights, NamedInteractions, NetworkAtText, NetworkReport, "
    "OutputMoments, PathSplit, "
    "PolynomialNetwork, Proof, "
    "QuadraticFit, QuadraticFitOptions, QuadraticForm, QuadraticLayer, QuadraticMap, "
    "QueryKeyPair, RSquared, ReadNetworkOptions, RotationNull, ScoreForm, "
    "SignificantEigenvalues, Status, Subspace, "
    "TokenInteractions, TopInteractions, TraceOptions, TraceReport, TrainImageOptions, "
    "TrainLanguageOptions, TrainSAEOptions, TransformerRoles, TruncatedNetwork, "
    "WireDecomposition, activation_moments, approximate_moments, attack_model, attribute, "
    "attribute_to_background, "
    "audit, callbacks, "
    "centred_directions, certify, certify_model, contrast_direction, convert_network, "
    "cp_decompose, decompose_wires, direct_interactions, dual_expression, effective_rank, "
    "eigendecompose, eigendecompose_all, export_sae, from_module, from_sklearn, gaussian_moments, "
    "hosvd, interaction_chance, interaction_submatrix, inventory, layer_inputs, load, "
    "load_converted, load_images, localisation, match_eigenvectors, network_similarity, nn, "
    "output_moments, "
    "pairwise_interactions, plan_eigendecomposition, plot, polynomial_network, quadratic_fit, "
    "quantise, raw_directions, read_at_text, read_attention, read_network, record, reproduce, "
    "Intervention, PushedModel, Recording, ablate, patch, push, steer, "
    "rotation_null, save, similarity, sklearn, "
    "split_interactions, token_interactions, top_interactions, trace, train_image, "
    "train_language, train_sae, whiten"
)
PUBLIC_MODULES = names_of(
    "MLP, BilinearClassifier, BilinearLayer, BilinearMLP, BilinearTransformer, "
    "PolynomialTransformer, ThresholdSAE, TopKSAE"
)
PUBLIC_ESTIMATORS = names_of("BilinearClassifier, BilinearRegressor")
PUBLIC_PLOTS = names_of("eigenvectors, interactions, spectrum, truncation")
PUBLIC_CERTIFICATES = names_of(
    "CertifiedAgreement, Contrast, InfluenceRange, InputBounds, L2Radius, LinfRadius, PairSpectra, "
    "QuadricDistance, QuantisationStability, RadiusStatus, RemovedInputs, SpectrumEnclosure, "
    "SpectrumStability, TruncationError, TrustRegion, UniversalPerturbation, UnusedInputs, "
    "certified_accuracy, certified_agreement, distance_to_quadric, enclose_spectrum, "
    "influence_range, l2_radius, linf_radius, prepare, "
    "projected_margin, quantisation_stability, remove_inputs, smallest_k, solve_trust_region, "
    "spectrum_stability, truncated_input_bound, truncation_error, truncation_moments, "
    "universal_perturbation, unused_inputs"
)

# Parameters with their defaults. Options may be added behind them; what is here stays.
SIGNATURES = {
    "certify.universal_perturbation": "f, mean, source, target, radius",
    "certify.linf_radius": "f, x, label, seed=0, restarts=4, steps=20",
    "certify.solve_trust_region": "values, linear, radius",
    "certify.distance_to_quadric": "values, linear, constant",
    "certify.projected_margin": "f, record, low=0.0, high=1.0",
    "certify.prepare": "f, pairs=None",
    "certify.enclose_spectrum": "eig",
    "certify.l2_radius": "f, x, label, spectra=None",
    "certify.certified_accuracy": "record, radii",
    "AttackReport": "document",
    "AuditReport": "document",
    "CertificateReport": "document",
    "ConversionReport": "document",
    "NetworkReport": "document",
    "TraceReport": "document",
    "callbacks.keras": "*, layers=None, every=1, tracker=None",
    "callbacks.lightning": "*, layers=None, every=1, tracker=None",
    "callbacks.transformers": "trainer, *, layers=None, every=1, tracker=None",
    "convert_network": "model, data, folder, recipe=None, held_out=None, *, resume=False, "
    "overwrite=False, device='auto', tracker=(), shard=False, report=None, say=None",
    "trace": "model, layer, *, input_sae=None, output_sae=None, corpus=None, tokenizer=None, "
    "latents=None, toward=(), outputs=5, pairs=8, features=8, top=20, tokens=16384, seed=0",
    "BilinearTensor": "down, left, right",
    "InteractionMatrix": "left, right, weight",
    "QuadraticForm": "matrix, linear, constant",
    "QuadraticMap": "tensor, linear=None, constant=None",
    "BilinearAttention": "pairs, value, out, n_head, rotary_base=None",
    "QueryKeyPair": "query, key",
    "PolynomialNetwork": (
        "parts, embedding=None, head=None, head_bias=None, positions=None, n_ctx=None, "
        "part_names=()"
    ),
    "QuadraticLayer": "map, residual=True",
    "TransformerRoles": (
        "embedding, head, query, key, value, out, left, right, down, attention_scale=None, "
        "mlp_scale=None, head_scale=None, n_head=1, rotary_base=10000.0, n_ctx=None, decay=None, "
        "positions=None"
    ),
    "interaction_chance": (
        "network, order, *, distance=None, tokens=None, measure='logits', num_samples=20, seed=0"
    ),
    "network_similarity": (
        "first, second, *, mean=None, covariance=None, outputs=None, centred=True"
    ),
    "output_moments": "network, mean=None, covariance=None",
    "polynomial_network": "given, roles=None, *, probe=None",
    "read_at_text": "model, tokens",
    "read_network": (
        "network, *, roles=None, probe=None, tokenizer=None, tokens=None, farthest=12, k=30, "
        "samples=20, seed=0, command=None"
    ),
    "split_interactions": "network, tokens, distance=None",
    "token_interactions": "network, order, *, distance=None, tokens=None, measure='logits', k=100",
    "decompose_wires": "network, *, mean=None, covariance=None",
    "approximate_moments": "network, mean=None, covariance=None, *, num_samples=100000, seed=0",
    "read_attention": "model, layer, head",
    "AttentionHead": (
        "layer, head, forms, value, value_bias, out, frequencies=None, decay=0.0, softmax=True, "
        "window=None, n_ctx=None, tokens=None, reads='the residual stream itself', "
        "checked_against=''"
    ),
    "ScoreForm": "query, key, query_bias, key_bias",
    "nn.PolynomialTransformer": (
        "vocab_size, d_model, d_hidden, n_layer, n_head, n_ctx, *, pairs=2, d_head=None, "
        "rotary_base=10000.0, decay=False"
    ),
    "Activation": "name, slope=None",
    "Intervention": "runs=0, rows=0, norm=0.0",
    "Recording": "runs=<factory>",
    "ablate": "model, layer, directions, *, at='input', mean=None, positions=None, control=None",
    "patch": "model, layer, values, directions=None, *, at='input', positions=None, control=None",
    "record": "model, layer, *, at='input', positions=None",
    "steer": "model, layer, directions, by, *, at='input', positions=None, control=None",
    "GLUWeights": "down, gate, value, activation, gate_bias=None, value_bias=None, linear=None, "
    "constant=None",
    "MLPWeights": "down, up, activation, up_bias=None, linear=None, constant=None",
    "activation_moments": "activation, mean, deviation",
    "inventory": "path",
    "layer_inputs": "model, data, *, layers=(), tokens=20000, n_ctx=128, held_out=0.2, seed=0",
    "quadratic_fit": "module_or_weights, mean=None, covariance=None, data=None, *, "
    "seed=0, samples=10000, threshold=0.9, train_steps=0",
    "attack_model": "model, data, *, target=None, source=None, pairs=False, epsilons=None, "
    "random_perturbations=3, restarts=3, seed=0",
    "attribute": "f, x, baseline=None",
    "attribute_to_background": "f, x, mean, covariance",
    "certify_model": "model, data=None, *, samples=1000, truncate=None, radius=None, seed=0",
    "audit": "model, data=None, *, null_samples=None, seed=0",
    "centred_directions": "d_out",
    "certify.certified_agreement": "f, k, x, eigs=None",
    "certify.truncation_moments": "eig, k, mean, covariance",
    "certify.influence_range": "f, i, box, output",
    "certify.remove_inputs": "f, inputs, radius, *, mean=None, covariance=None",
    "certify.unused_inputs": "f, tolerance=0.0",
    "certify.quantisation_stability": "f, kind, directions=None, k=None",
    "certify.spectrum_stability": "form, changed, k=None",
    "certify.smallest_k": "eig, tolerance, radius",
    "certify.truncated_input_bound": "eig, k, x",
    "certify.truncation_error": "eig, k, radius, form=None",
    "contrast_direction": "d_out, positive, negative",
    "effective_rank": "eigenvalues",
    "eigendecompose": "form, k=None, which='magnitude', method='auto'",
    "eigendecompose_all": "f, directions=None, k=None, which='magnitude', method='auto'",
    "cp_decompose": "f, rank, *, model='pairs', method='als', num_starts=3, seed=0",
    "direct_interactions": "f, dictionary, directions=None",
    "dual_expression": "f, directions",
    "export_sae": "sae, folder, layout='saelens', *, provenance=None, overwrite=False",
    "from_module": "module, example=None",
    "from_sklearn": "estimator",
    "gaussian_moments": "f, mean, covariance",
    "hosvd": "f, rank=None",
    "interaction_submatrix": "f, dictionary, output_direction, features",
    "localisation": "vectors",
    "match_eigenvectors": "first, second, seed=0, method='assignment', k=None",
    "pairwise_interactions": "form, x, baseline=None",
    "top_interactions": "form, x, k, baseline=None",
    "plan_eigendecomposition": "f, directions=None, k=None, method='auto'",
    "quantise": "f, kind",
    "similarity": "f, g, measure='frobenius'",
    "sklearn.BilinearClassifier": "alpha=None, column_scale=None, quadratic_scale=None, "
    "n_components=None, class_weight=None, max_iter=100, tol=1e-08, random_state=None, "
    "verbose=False",
    "sklearn.BilinearRegressor": "alpha=None, column_scale=None, quadratic_scale=None, "
    "n_components=None, max_iter=100, tol=1e-08, random_state=None, verbose=False",
    "plot.eigenvectors": "eig, shape=None, *, k=4, names=None, ax=None",
    "plot.interactions": "matrix, names=None, *, ax=None",
    "plot.spectrum": "eig, null=None, *, direction=0, level=0.95, ax=None",
    "plot.truncation": "eigs, x, label, *, ax=None",
    "train_image": "images, labels, folder, *, test=None, class_names=None, dataset='mnist', "
    "resume=False, overwrite=False, device='auto'",
    "train_language": "corpus, folder, *, column=None, split='train', limit=None, stream=False, "
    "held_out=0.05, corpus_seed=0, resume=False, overwrite=False, device='auto', tracker=(), "
    "shard=False, texts_at_once=0",
    "train_sae": "model, folder, *, hooks=(), text=None, resume=False, overwrite=False, "
    "device='auto', tracker=(), shard=False",
    "whiten": "f, covariance, mean=None",
    "load_images": "name, data_dir=None, allow_download=True, report=None",
    "reproduce": "names, out",
    "load_converted": "path",
    "push": "model, repository, *, private=True, message='', reports=(), license='', dry_run=False",
    "load": "path, *, residual=None, allow_pickle=False, roles=None, activation=None, "
    "transposed=None",
    "nn.BilinearClassifier": (
        "d_input, d_hidden, d_output, n_layers=1, bias=False, residual=False, gate=None"
    ),
    "nn.BilinearLayer": "d_input, d_output, bias=False, gate=None",
    "nn.ThresholdSAE": "d_in, num_latents, *, d_out=None, skip=False",
    "nn.TopKSAE": "d_in, num_latents, k, *, sign='relu', d_out=None, skip=False",
    "nn.BilinearMLP": "d_model, d_hidden, d_output=None, bias=False, gate=None",
    "nn.MLP": "d_model, d_hidden, bias=False",
    "nn.BilinearTransformer": (
        "vocab_size, d_model, d_hidden, n_layer, n_head, n_ctx, gate=None, *, tied=False, "
        "bias=False, rotary_base=10000.0, norm_epsilon=1e-05, mlp_type='gated'"
    ),
    "raw_directions": "d_out",
    "rotation_null": "f, directions, seed=0, num_samples=99, embedding=None, progress=None",
    "save": (
        "module, folder, *, input_shape=None, output_names=None, provenance=None, overwrite=False"
    ),
    "BilinearTensor.gram": "self, other=None",
    "BilinearTensor.inner": "self, other",
    "BilinearTensor.norm": "self",
    "BilinearTensor.traces": "self",
    "BilinearTensor.dense": "self",
    "QuadraticMap.__call__": "self, x",
    "QuadraticMap.__add__": "self, other",
    "QuadraticMap.__sub__": "self, other",
    "QuadraticMap.__mul__": "self, factor",
    "QuadraticForm.__mul__": "self, factor",
    "QuadraticMap.form": "self, output_direction",
    "QuadraticMap.compose_input": "self, matrix, bias=None",
    "QuadraticMap.compose_output": "self, matrix, bias=None",
    "QuadraticMap.with_biases": "self, left_bias, right_bias",
    "QuadraticMap.plus_affine": "self, linear=None, constant=None",
    "QuadraticMap.to": "self, dtype",
    "QuadraticMap.detach": "self",
    "QuadraticForm.__call__": "self, x",
    "QuadraticForm.matvec": "self, vectors",
    "QuadraticForm.trace": "self",
    "QuadraticForm.norm": "self",
    "QuadraticForm.inner": "self, other",
    "QuadraticForm.dense": "self",
    "EigenDecomposition.contributions": "self, x",
    "EigenDecomposition.truncate": "self, k",
    "EigenDecomposition.truncate_map": "self, k",
    "EigenDecomposition.subspaces": "self",
    "Contributions.total": "self",
    "Subspace.projector": "self",
    "RotationNull.edges": "self, level=0.95",
    "RotationNull.p_values": "self, smallest, largest",
    "History": "folder",
    "History.add": "self, record",
    "History.audits": "self, model=None",
    "History.document": "self, number",
    "History.say": "self, action, model, subject, text, author, until=None",
    "History.entries": "self, model=None",
    "History.accepted": "self, model, today=None",
    "History.still_fails": "self, record, rules",
    "AuditReport.from_json": "path",
    "AuditReport.to_dict": "self",
    "AuditReport.to_json": "self, path=None",
    "AuditReport.to_html": "self, path=None, lang='en'",
    "nn.BilinearClassifier.quadratic_map": "self, basis='input'",
    "nn.BilinearClassifier.layer_map": "self, index, basis='input'",
    "nn.BilinearLayer.quadratic_map": "self",
    "nn.BilinearMLP.quadratic_map": "self",
    "nn.BilinearTransformer.forward": "self, tokens, padding_mask=None",
    "nn.BilinearTransformer.run": ("self, tokens, *, capture=(), replace=None, padding_mask=None"),
    "nn.BilinearTransformer.activations": "self, tokens, capture, padding_mask=None",
    "nn.BilinearTransformer.layer_map": "self, index",
    "nn.BilinearTransformer.next_token_loss": "self, texts, padding_mask=None",
    "nn.BilinearTransformer.save_huggingface": (
        "self, folder, *, tokenizer=None, end_of_text='<|endoftext|>', provenance=None, "
        "overwrite=False"
    ),
    "nn.BilinearTransformer.generate": (
        "self, tokens, max_new_tokens, temperature=1.0, top_k=None, seed=None, end_token=None"
    ),
}
ATTRIBUTES: dict[type, str] = {
    bilens.EigenDecomposition: (
        "eigenvalues, eigenvectors, residuals, converged, frobenius_squared, explained, complete, "
        "rounding_bound, cluster, cluster_size, linear, constant, method, which, basis, status, "
        "proof, distinct_from_zero, whole, device"
    ),
    bilens.PushedModel: "repository, private, files, left_here, address, url",
    bilens.Contributions: "pairs, linear, constant",
    bilens.Subspace: "indices, size, eigenvalue, basis, complete",
    bilens.RotationNull: "largest, smallest, effective_rank, status, num_samples",
    bilens.SignificantEigenvalues: "positive, negative, p_values, level",
    bilens.Status: "OK, NOT_FINITE, NOT_CONVERGED, RESIDUAL_TOO_LARGE",
    bilens.Proof: "NONE, SPECTRUM, NORM, RANK, COMPARISON",
    bilens.EigenPlan: "method, precision, batch, peak_bytes, limit_bytes, costs",
    bilens.ImageDataset: (
        "name, train_images, train_labels, test_images, test_labels, image_shape, class_names, "
        "source, fingerprint"
    ),
    bilens.HOSVD: (
        "singular_values, output_directions, input_directions, output, input, frobenius_squared, "
        "forms, form, truncate, truncation_error"
    ),
    bilens.CPDecomposition: (
        "down, left, right, fit, relative_error, uniqueness, starts, converged, quadratic_map, "
        "eigenpairs"
    ),
    bilens.DualExpression: "directions, duals, forms, relative_error, biorthogonal",
    bilens.DirectInteractions: (
        "self_interactions, cross_interactions, norm, linear, constant, status, features"
    ),
    bilens.EigenvectorMatch: "pairs, cosines, score, chance, p_value",
    bilens.certify.L2Radius: "radius, rival, example, distance, per_rival, margin, gap, status",
    bilens.certify.RadiusStatus: (
        "CERTIFIED, MISCLASSIFIED, TIED, UNREACHABLE, NO_EXAMPLE, NOT_FINITE"
    ),
    bilens.certify.LinfRadius: "radius, upper, example, margin, status",
    bilens.certify.UniversalPerturbation: "delta, change, lower, gap",
    bilens.certify.QuadricDistance: "radius, distance, point, gap",
    bilens.certify.TrustRegion: "point, value, lower, gap",
    bilens.certify.PairSpectra: "f, contrasts, contrast",
    bilens.certify.Contrast: "values, vectors, linear, first, second",
    bilens.FitScores: "linear, quadratic, rows",
    bilens.QuadraticFit: (
        "quadratic_map, exact, derivation, assumed_input, chosen, ladder, missing, threshold, "
        "r_squared, usable, check_usable"
    ),
    bilens.RSquared: "overall, standard_error, outputs, output_errors, trimmed, "
    "trimmed_error, median, median_interval, largest_share",
    bilens.TopInteractions: "first, second, values",
    bilens.GaussianMoments: "mean, variance",
    bilens.AttackReport: "document, holds",
    bilens.AuditReport: "document, passed",
    bilens.CertificateReport: "document",
    bilens.ConversionReport: "document",
    bilens.TraceReport: "document",
    bilens.AttackOptions: "target, source, pairs, epsilons, random_perturbations, restarts, seed",
    bilens.AuditOptions: "data, null_samples, seed, baseline, fail_on, threshold, labels, inputs",
    bilens.CPOptions: "model, method, num_starts, seed, max_sweeps, tolerance, memory_limit",
    bilens.EigenOptions: "directions, k, which, method, precision, verify, memory_limit, seed",
    bilens.InteractionOptions: "directions, bias, top, bins, self_bins, block, precision",
    bilens.QuadraticFitOptions: "mean, covariance, data, seed, samples, threshold, train_steps",
    bilens.CertifyOptions: "data, samples, truncate, radius, seed",
    bilens.ReadNetworkOptions: "roles, probe, tokenizer, tokens, farthest, k, samples, seed",
    bilens.TraceOptions: "input_sae, output_sae, corpus, tokenizer, latents, toward, outputs",
    bilens.ConvertNetworkOptions: "recipe, held_out, resume, overwrite, device, shard, report, say",
    bilens.TrainImageOptions: "test, class_names, dataset, resume, overwrite, device, epochs",
    bilens.TrainLanguageOptions: "column, split, limit, stream, held_out, corpus_seed, shard",
    bilens.TrainSAEOptions: "hooks, text, resume, overwrite, device, shard, num_latents, k",
    bilens.certify.CertifiedAgreement: (
        "certified, agrees, predicted, margin, k, certified_share, agreeing_share"
    ),
    bilens.certify.InfluenceRange: "bound, reached, upper, lower, input, output, assumption",
    bilens.certify.RemovedInputs: (
        "quadratic_map, bound, reached, example, norm, moments, inputs, radius, assumption"
    ),
    bilens.certify.UnusedInputs: (
        "quadratic, linear, rounding, unused, undecided, tolerance, assumption"
    ),
    bilens.certify.QuantisationStability: "kind, quadratic_map, forms",
    bilens.certify.SpectrumStability: "decomposition, change, norm, movement, gap, sine",
    bilens.certify.InputBounds: "low, high, left, k",
    bilens.certify.SpectrumEnclosure: "eig, low, high, slack",
    bilens.certify.TruncationError: "bound, reached, example, attained, k, radius, basis",
    bilens.BilinearTensor: "down, left, right, sizes",
    bilens.QuadraticMap: "tensor, linear, constant, basis, sizes, dtype, device",
    bilens.QuadraticForm: "matrix, linear, constant, basis, d_in, device",
    LayerView: (
        "quadratic_map, exact, fit, weights, sizes, activation, dtype, gated, reads, gives, "
        "about_input"
    ),
    LoadedModel: (
        "module, layers, source, weights_sha256, input_shape, output_names, provenance, exactness"
    ),
    Agreement: "layer, source, rows, max_error, relative_error",
    bilens.InteractionChance: "pooled, num_samples, seed, share_as_large, count_beyond",
    bilens.OutputMoments: "mean, covariance",
    bilens.NamedInteractions: (
        "position, direct, heads, pairs, inputs, constant, logit, whole, named, largest"
    ),
    bilens.NetworkAtText: (
        "tokens, logits, embedded, parts, part_names, norm, head, head_bias, checked_against, "
        "paths, interactions, mlp_map"
    ),
    bilens.PathSplit: "paths, values, whole, names, largest",
    bilens.ApproximateMoments: (
        "mean, covariance, sampled_mean, sampled_covariance, mean_standard_error, "
        "variance_standard_error, largest_share, num_samples, mean_error, variance_ratio"
    ),
    bilens.TruncatedNetwork: (
        "network, widths, squared_error, rounding, bound, squared_norm, error_bound, gaussian_error"
    ),
    bilens.WireDecomposition: (
        "layers, head, spectra, squared_norm, read, write, truncate, widths_within"
    ),
    bilens.TokenInteractions: "order, distance, slots, values, strongest, strongest_values",
}


def public(path: str) -> Callable[..., Any]:
    """What a dotted name of the package stands for."""
    value: Any = bilens
    for name in path.split("."):
        value = getattr(value, name)
    return value


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function, without annotations."""
    signature = inspect.signature(function)
    return [p.replace(annotation=p.empty) for p in signature.parameters.values()]


def test_public_names_are_a_promise() -> None:
    assert sorted(bilens.__all__) == sorted(set(PUBLIC) - {"sklearn"})  # it needs an extra
    assert sorted(bilens.sklearn.__all__) == sorted(PUBLIC_ESTIMATORS)
    assert sorted(bilens.nn.__all__) == sorted(PUBLIC_MODULES)
    assert sorted(bilens.plot.__all__) == sorted(PUBLIC_PLOTS)
    assert sorted(bilens.certify.__all__) == sorted(PUBLIC_CERTIFICATES)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_can_be_had(name: str) -> None:
    assert getattr(bilens, name) is not None
    assert name in dir(bilens)


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_is_a_promise(name: str) -> None:
    """The parameters of the frozen signature come first and unchanged; new ones are optional."""
    found = parameters(public(name))
    frozen = SIGNATURES[name]
    promised = len(frozen.replace("*, ", "").split(", "))
    assert str(inspect.Signature(found[:promised])) == f"({frozen})"
    more = [p for p in found[promised:] if p.kind is not p.VAR_KEYWORD]
    assert all(parameter.default is not parameter.empty for parameter in more)


@pytest.mark.parametrize("record", ATTRIBUTES, ids=lambda record: record.__name__)
def test_attributes_of_a_record_are_a_promise(record: type) -> None:
    known = dataclasses.fields(record) if dataclasses.is_dataclass(record) else ()
    fields = {field.name for field in known}
    missing = [
        n for n in names_of(ATTRIBUTES[record]) if n not in fields and not hasattr(record, n)
    ]
    assert not missing


def test_every_public_signature_is_frozen() -> None:
    """Records that only the library makes are frozen by their attributes instead."""
    records = {record.__name__ for record in ATTRIBUTES}
    assert {*PUBLIC} - records - {"callbacks", "certify", "nn", "plot", "sklearn"} <= {*SIGNATURES}
    assert {f"callbacks.{name}" for name in bilens.callbacks.__all__} <= {*SIGNATURES}
    assert {f"sklearn.{name}" for name in PUBLIC_ESTIMATORS} <= {*SIGNATURES}
    assert {f"nn.{name}" for name in PUBLIC_MODULES} <= {*SIGNATURES}
    assert {f"plot.{name}" for name in PUBLIC_PLOTS} <= {*SIGNATURES}
    certificates = {*PUBLIC_CERTIFICATES} - records
    assert {f"certify.{name}" for name in certificates} <= {*SIGNATURES}


def public_objects() -> list[tuple[str, object]]:
    """Every public function and class, and the public methods of the classes."""
    homes = {"bl": bilens, "bl.certify": bilens.certify, "bl.nn": bilens.nn, "bl.plot": bilens.plot}
    found = []
    for home, module in homes.items():
        for name in module.__all__:
            item = getattr(module, name)
            if inspect.isclass(item):
                methods = {k: v for k, v in vars(item).items() if inspect.isfunction(v)}
                found += [
                    (f"{home}.{name}.{k}", v) for k, v in methods.items() if not k.startswith("_")
                ]
            if inspect.isclass(item) or inspect.isfunction(item):
                found.append((f"{home}.{name}", item))
    return found


def test_every_public_name_says_what_it_is() -> None:
    silent = [name for name, item in public_objects() if not inspect.getdoc(item)]
    assert not silent
