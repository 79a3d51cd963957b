from . import callbacks as callbacks, certify as certify, nn as nn, plot as plot, sklearn as sklearn
from .algebra.approximation.activation import (
    Activation as Activation,
    activation_moments as activation_moments,
)
from .algebra.approximation.fit_options import QuadraticFitOptions as QuadraticFitOptions
from .algebra.approximation.layer_weights import GLUWeights as GLUWeights, MLPWeights as MLPWeights
from .algebra.approximation.quadratic_fit import QuadraticFit as QuadraticFit
from .algebra.approximation.r_squared import FitScores as FitScores, RSquared as RSquared
from .algebra.attribution import (
    TopInteractions as TopInteractions,
    attribute as attribute,
    attribute_to_background as attribute_to_background,
    pairwise_interactions as pairwise_interactions,
    top_interactions as top_interactions,
)
from .algebra.bilinear_tensor import BilinearTensor as BilinearTensor
from .algebra.concentration import effective_rank as effective_rank, localisation as localisation
from .algebra.cp.cp_decomposition import CPDecomposition as CPDecomposition
from .algebra.cp.cp_fit import CPOptions as CPOptions, cp_decompose as cp_decompose
from .algebra.directions import (
    DualExpression as DualExpression,
    centred_directions as centred_directions,
    contrast_direction as contrast_direction,
    dual_expression as dual_expression,
    raw_directions as raw_directions,
)
from .algebra.eigen.decomposition import (
    Contributions as Contributions,
    EigenDecomposition as EigenDecomposition,
    Proof as Proof,
    Status as Status,
    Subspace as Subspace,
)
from .algebra.eigen.eigendecompose import (
    EigenOptions as EigenOptions,
    eigendecompose as eigendecompose,
    eigendecompose_all as eigendecompose_all,
    plan_eigendecomposition as plan_eigendecomposition,
)
from .algebra.eigen.plan import EigenPlan as EigenPlan
from .algebra.eigenvector_matching import (
    EigenvectorMatch as EigenvectorMatch,
    match_eigenvectors as match_eigenvectors,
)
from .algebra.gaussian import (
    GaussianMoments as GaussianMoments,
    gaussian_moments as gaussian_moments,
    whiten as whiten,
)
from .algebra.hosvd import HOSVD as HOSVD, hosvd as hosvd
from .algebra.interactions.direct_interactions import (
    InteractionOptions as InteractionOptions,
    direct_interactions as direct_interactions,
)
from .algebra.interactions.feature_factors import interaction_submatrix as interaction_submatrix
from .algebra.interactions.record import DirectInteractions as DirectInteractions
from .algebra.map_comparison import quantise as quantise, similarity as similarity
from .algebra.quadratic_form import (
    InteractionMatrix as InteractionMatrix,
    QuadraticForm as QuadraticForm,
)
from .algebra.quadratic_map import QuadraticMap as QuadraticMap
from .algebra.rotation_null import (
    RotationNull as RotationNull,
    SignificantEigenvalues as SignificantEigenvalues,
    rotation_null as rotation_null,
)
from .api.attention_reading import read_attention as read_attention
from .api.audit_model import audit as audit
from .api.classifier import attack_model as attack_model, certify_model as certify_model
from .api.history import History as History
from .api.network_conversion import convert_network as convert_network
from .api.network_reading import read_network as read_network
from .api.options import (
    AttackOptions as AttackOptions,
    AuditOptions as AuditOptions,
    CertifyOptions as CertifyOptions,
    ReadNetworkOptions as ReadNetworkOptions,
)
from .api.polynomial_network import (
    TransformerRoles as TransformerRoles,
    polynomial_network as polynomial_network,
)
from .api.push import PushedModel as PushedModel, push as push
from .api.quadratic_fit import quadratic_fit as quadratic_fit
from .api.running_model import (
    Intervention as Intervention,
    Recording as Recording,
    ablate as ablate,
    patch as patch,
    record as record,
    steer as steer,
)
from .api.text_reading import read_at_text as read_at_text
from .api.tracing import trace as trace
from .api.training import (
    train_image as train_image,
    train_language as train_language,
    train_sae as train_sae,
)
from .api.training_options import (
    ConvertNetworkOptions as ConvertNetworkOptions,
    TrainImageOptions as TrainImageOptions,
    TrainLanguageOptions as TrainLanguageOptions,
    TrainSAEOptions as TrainSAEOptions,
)
from .data.images import ImageDataset as ImageDataset, load_images as load_images
from .interp.trace_options import TraceOptions as TraceOptions
from .io.autoencoders import export_sae as export_sae
from .io.converted_folder import load_converted as load_converted
from .io.estimator import from_sklearn as from_sklearn
from .io.inventory import inventory as inventory
from .io.load import from_module as from_module, load as load
from .io.model_folder import save as save
from .polynomial.at_text import (
    NamedInteractions as NamedInteractions,
    NetworkAtText as NetworkAtText,
)
from .polynomial.attention import (
    BilinearAttention as BilinearAttention,
    QueryKeyPair as QueryKeyPair,
)
from .polynomial.attention_head import AttentionHead as AttentionHead
from .polynomial.chance import (
    InteractionChance as InteractionChance,
    interaction_chance as interaction_chance,
)
from .polynomial.closure import (
    ApproximateMoments as ApproximateMoments,
    approximate_moments as approximate_moments,
)
from .polynomial.composition import (
    OutputMoments as OutputMoments,
    network_similarity as network_similarity,
    output_moments as output_moments,
)
from .polynomial.network import (
    PolynomialNetwork as PolynomialNetwork,
    QuadraticLayer as QuadraticLayer,
)
from .polynomial.paths import (
    PathSplit as PathSplit,
    split_interactions as split_interactions,
)
from .polynomial.score_form import ScoreForm as ScoreForm
from .polynomial.token_interactions import (
    TokenInteractions as TokenInteractions,
    token_interactions as token_interactions,
)
from .polynomial.wires import (
    TruncatedNetwork as TruncatedNetwork,
    WireDecomposition as WireDecomposition,
    decompose_wires as decompose_wires,
)
from .report.reports import (
    AttackReport as AttackReport,
    AuditReport as AuditReport,
    CertificateReport as CertificateReport,
    ConversionReport as ConversionReport,
    NetworkReport as NetworkReport,
    TraceReport as TraceReport,
)
from .reproduction import reproduce as reproduce
from .train.record_inputs import layer_inputs as layer_inputs

__version__: str
__all__: list[str]
