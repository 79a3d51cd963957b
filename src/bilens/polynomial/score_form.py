"""The score of a query and a key as a bilinear form of what two positions hold."""

import math

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.notebook import frozen_result


@frozen_result("query", "key")
class ScoreForm:
    """s(q, k) = (query q + query_bias) · (key k + key_bias), q and k what two positions hold.

    Math: multiplied out, s(q, k) = qᵀ M k + a · q + b · k + c with M = queryᵀ key, of rank d_head;
        M is never formed. Its symmetric part says what attends to its like, the antisymmetric one
        who attends to whom and not the other way round.

    Attributes:
        query, key: (d_head, d_model); gains and 1/√d_head are in them, and so is the rotation.
        query_bias, key_bias: (d_head,).
    """

    query: Tensor
    key: Tensor
    query_bias: Tensor
    key_bias: Tensor

    def queries_of(self, x: Tensor) -> Tensor:
        """Compute query x + query_bias, (n, d_model) → (n, d_head)."""
        return x @ self.query.T + self.query_bias

    def keys_of(self, x: Tensor) -> Tensor:
        """Compute key x + key_bias, (n, d_model) → (n, d_head)."""
        return x @ self.key.T + self.key_bias

    def __call__(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Compute all scores, (n, d_model) and (m, d_model) → (n, m)."""
        return self.queries_of(queries) @ self.keys_of(keys).T

    @property
    def query_term(self) -> Tensor:
        """The vector a, (d_model,): what a query adds whatever the key; no softmax sees it."""
        return self.query.T @ self.key_bias

    @property
    def key_term(self) -> Tensor:
        """The vector b, (d_model,): what a key adds whatever the query."""
        return self.key.T @ self.query_bias

    @property
    def constant(self) -> float:
        """The score c of two zeros; with rotary positions, what the distance alone does."""
        return float(self.query_bias @ self.key_bias)

    def symmetric_part(self, k: int | None = None) -> EigenDecomposition:
        """Compute eigenpairs of (M + Mᵀ)/2, at most 2 · d_head, in O(d_model · d_head²).

        Args:
            k: how many; None for all that can differ from zero.
        """
        f = QuadraticMap(
            BilinearTensor(self.query.new_ones(1, len(self.key)), self.query, self.key)
        )
        most = min(2 * len(self.key), self.key.shape[1])
        return eigendecompose(f.form(0), most if k is None else k)

    def antisymmetric_part(self) -> tuple[Tensor, Tensor, Tensor]:
        """Compute ω, u and v with (M − Mᵀ)/2 = Σ ω (u vᵀ − v uᵀ), in O(d_model · d_head²).

        A query along u attends to a key along v by 2ω more than a query along v to a key along u.

        Returns: ω (r,) falling, not negative, and orthonormal rows u and v, (r, d_model) each, in
            each plane turned until v is 0 where u² + v² is largest, and u positive.
        """
        # Math: [queryᵀ, keyᵀ] = B T, so (M − Mᵀ)/2 = B T J Tᵀ Bᵀ with J = ½[[0, I], [−I, 0]];
        # i times a real antisymmetric matrix is Hermitian: eigenvalues ±ω, vectors (v ± i u)/√2.
        rank = len(self.key)
        basis, corner = torch.linalg.qr(torch.cat([self.query.T, self.key.T], dim=1))
        first, second = corner[:, :rank], corner[:, rank:]
        small = (first @ second.T - second @ first.T) / 2
        values, vectors = torch.linalg.eigh(small * 1j)
        planes = (basis.to(vectors) @ vectors.flip(1)).T[: len(small) // 2] * math.sqrt(2)
        largest = planes.abs().argmax(dim=1, keepdim=True)
        turned = planes * (1j * planes.gather(1, largest).conj().sgn())
        return values.flip(0)[: len(small) // 2].clamp(min=0), turned.imag, turned.real
