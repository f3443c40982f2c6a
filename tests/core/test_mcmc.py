"""The torch stand-ins for gsplat's CUDA-only parts of MCMC, against their formulas."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from dreamer_core.errors import DivergenceError
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import DensityConfig, OptimizationState
from dreamer_core.optimize.mcmc import covariances, refine, relocation
from dreamer_core.optimize.recipe import LearningRates, RegularizerConfig
from dreamer_core.optimize.regularizers import scene_terms


def double_sum(o, n):
    """The paper's eq. 9 as it stands."""
    new = 1 - (1 - o) ** (1 / n)
    total = sum(
        math.comb(i - 1, k) * (-1) ** k / math.sqrt(k + 1) * new ** (k + 1) for i in range(1, n + 1) for k in range(i)
    )
    return new, o / total


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("o", [0.05, 0.5, 0.9])
def test_relocation_is_equation_9(o, n):
    opacity, scale = relocation(torch.tensor([o]), torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([n]))
    expected_opacity, factor = double_sum(o, n)
    assert float(opacity[0]) == pytest.approx(expected_opacity, rel=1e-5)
    torch.testing.assert_close(scale, factor * torch.tensor([[0.1, 0.2, 0.3]]), rtol=1e-5, atol=0)


def test_many_copies_stay_finite():
    opacity, scale = relocation(torch.rand(200), torch.rand(200, 3), torch.full((200,), 400))
    assert torch.isfinite(opacity).all()
    assert torch.isfinite(scale).all()


def test_two_copies_look_like_the_one_they_replace():
    """In the middle of the Gaussian the copies' transmittance is the original's."""
    opacity, _ = relocation(torch.tensor([0.8]), torch.ones(1, 3), torch.tensor([2]))
    assert float((1 - opacity) ** 2) == pytest.approx(0.2, rel=1e-5)


def test_covariances_are_those_of_scipy():
    g = torch.Generator().manual_seed(0)
    quats, scales = torch.randn(6, 4, generator=g), torch.rand(6, 3, generator=g)
    got, _ = covariances(quats, scales)
    for i in range(6):
        r = torch.from_numpy(Rotation.from_quat(quats[i, [1, 2, 3, 0]].numpy()).as_matrix()).float()
        torch.testing.assert_close(got[i], r @ torch.diag(scales[i] ** 2) @ r.T, rtol=1e-4, atol=1e-5)


def test_dead_gaussians_are_relocated_to_living_ones():
    scene = initial_shape("sphere", 100, torch.Generator().manual_seed(0))
    state = OptimizationState.create(scene, LearningRates())
    for name, param in state.params.items():
        if name in state.optimizers:
            param.grad = torch.zeros_like(param)
            state.optimizers[name].step()
    with torch.no_grad():
        state.params["opacities"][:40] = -9.0
    torch.manual_seed(0)
    refine(state.params, state.optimizers, 10, DensityConfig(strategy="mcmc", start=1, every=5, max_gaussians=100), 0.0)
    assert len(state.params["means"]) == 100
    assert state.gaussians.opacities.min() >= 0.005
    living = {tuple(m.tolist()) for m in scene.means[40:]}
    assert all(tuple(m.tolist()) in living for m in state.gaussians.means[:40])


def test_a_scene_without_living_gaussians_ends_with_a_reason():
    scene = initial_shape("sphere", 20, torch.Generator().manual_seed(0), opacity=0.004)
    state = OptimizationState.create(scene, LearningRates())
    config = DensityConfig(strategy="mcmc", start=1, every=5, max_gaussians=40)
    with pytest.raises(DivergenceError, match=r"no Gaussian is left above density\.prune_opacity 0\.005"):
        refine(state.params, state.optimizers, 10, config, 0.0)


def test_scene_terms():
    scene = initial_shape("sphere", 50, torch.Generator().manual_seed(0), opacity=0.25)
    weights = RegularizerConfig(scale=2.0, opacity=3.0, opacity_entropy=1.0, anisotropy=1.0, max_anisotropy=4.0)
    terms = scene_terms(scene, weights)
    assert float(terms["scale"]) == pytest.approx(2 * float(scene.scales.mean()))
    assert float(terms["opacity"]) == pytest.approx(0.75)
    assert float(terms["opacity_entropy"]) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75), rel=1e-5)
    assert float(terms["anisotropy"]) == 0.0
    needles = scene.with_log_scales(scene.log_scales + torch.tensor([math.log(8.0), 0.0, 0.0]))
    assert float(scene_terms(needles, weights)["anisotropy"]) == pytest.approx((8 - 4) / 4, rel=1e-4)
    assert scene_terms(scene, RegularizerConfig(scale=0.0)) == {}
