"""Values of torch come back as they were: as results, as items of maps, and in fields of models."""

from __future__ import annotations

import sys
import typing as tp

import numpy as np
import pydantic
import pytest
from stored import as_item, as_result

from hydra_exca.errors import CacheError, ConfigError
from hydra_exca.identity import uid
from hydra_exca.store import pickles
from hydra_exca.store.formats import registry

Make = tp.Callable[[tp.Any], tp.Any]  # makes a value of the module torch, which takes seconds to import


@pytest.fixture(scope="module")
def torch() -> tp.Any:
    return pytest.importorskip("torch", exc_type=ImportError)


class Model(pydantic.BaseModel, arbitrary_types_allowed=True):
    """A result, or a task, with a field of any type."""

    field: tp.Any


def as_field(value: tp.Any) -> tp.Any:
    return as_result(Model(field=value)).field


def assert_same(value: tp.Any, back: tp.Any) -> None:
    """Asserts that type, dtype, shape, device, gradient and every bit are the same."""
    torch: tp.Any = sys.modules["torch"]
    assert type(back) is type(value)
    if isinstance(value, torch.Tensor):
        for name in ("dtype", "shape", "layout", "device", "requires_grad"):
            assert getattr(back, name) == getattr(value, name)
        assert value.device.type == "meta" or bits(value) == bits(back)
    elif isinstance(value, np.generic):
        assert (value.dtype, value.tobytes()) == (back.dtype, back.tobytes())
    elif isinstance(value, (list, torch.nn.Module, dict)):
        for one, other in zip(parts(value), parts(back), strict=True):
            assert_same(one, other)
    else:
        assert value == back


def parts(value: tp.Any) -> list[tp.Any]:
    if isinstance(value, sys.modules["torch"].nn.Module):
        return [value.training, *parts(value.state_dict(keep_vars=True))]
    return value if isinstance(value, list) else [*value.keys(), *value.values()]


def bits(tensor: tp.Any) -> bytes:
    torch: tp.Any = sys.modules["torch"]
    dense = tensor.detach().to_dense() if tensor.layout is not torch.strided else tensor.detach()
    dense = dense if dense.element_size() > 1 else dense.view(torch.uint8)
    plain = dense.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format).reshape(-1)
    return bytes(plain.view(torch.uint8).numpy().tobytes())


def plain(torch: tp.Any) -> tp.Any:
    return torch.arange(6.0).reshape(2, 3)


def int2(torch: tp.Any) -> tp.Any:
    """A type with less than a byte for each number: of integers, torch 2.4 has only unsigned ones."""
    return getattr(torch, "int2", torch.uint2)


TENSORS: dict[str, Make] = {  # torch's own format takes them
    "plain": lambda torch: plain(torch),
    "without dimensions": lambda torch: torch.tensor(3.5),
    "a bool without dimensions": lambda torch: torch.tensor(True),
    "a loss": lambda torch: (torch.ones(4, requires_grad=True) * 2).sum(),
    "empty": lambda torch: torch.empty(0, 3),
    "nan": lambda torch: torch.tensor([float("nan"), -0.0]),
    "bfloat16": lambda torch: plain(torch).bfloat16(),
    "bfloat16 without dimensions": lambda torch: torch.tensor(1.5, dtype=torch.bfloat16),
    "float16": lambda torch: plain(torch).half(),
    "complex": lambda torch: torch.tensor([1 + 2j]),
    "int8": lambda torch: plain(torch).to(torch.int8),
    "transposed": lambda torch: plain(torch).t(),
    "every second column": lambda torch: plain(torch)[:, ::2],
    "a row": lambda torch: plain(torch)[1],
    "expanded": lambda torch: plain(torch)[:1].expand(4, 3),
    "channels last": lambda torch: torch.zeros(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
    "a conjugate": lambda torch: torch.tensor([1 + 2j]).conj(),
    "negated": lambda torch: torch.tensor([1 + 2j]).conj().imag,
    "with gradient": lambda torch: torch.ones(2, requires_grad=True),
    "computed with gradient": lambda torch: torch.ones(2, requires_grad=True) * 2,
    "a view with gradient": lambda torch: torch.ones(4, requires_grad=True)[1:3],
}
OTHERS: dict[str, Make] = {  # these are pickled
    "on the meta device": lambda torch: torch.empty(2, 3, device="meta"),
    "on the meta device with gradient": lambda torch: torch.empty(2, device="meta", requires_grad=True),
    "a parameter": lambda torch: torch.nn.Parameter(plain(torch).clone()),
    "a frozen parameter": lambda torch: torch.nn.Parameter(plain(torch).clone(), requires_grad=False),
    "sparse": lambda torch: plain(torch).to_sparse(),
    "uint16": lambda torch: torch.ones(2, dtype=torch.uint16),
    "uint16 in a dict": lambda torch: {"tokens": torch.arange(3).to(torch.uint16)[1:]},
    "uint4": lambda torch: torch.tensor([1, 255], dtype=torch.uint8).view(torch.uint4),
    "2 bits in a dict": lambda torch: {"a": torch.arange(6, dtype=torch.uint8).reshape(2, 3).t()[1:].view(int2(torch))},
    "float8": lambda torch: torch.ones(2).to(torch.float8_e4m3fn),
    "a state dict in float8": lambda torch: torch.nn.Linear(2, 2).to(torch.float8_e4m3fn).state_dict(),
    "a module": lambda torch: torch.nn.Linear(2, 3),
    "modules in a row": lambda torch: torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).eval(),
    "a module in bfloat16": lambda torch: torch.nn.Linear(2, 2).bfloat16(),
    "a module on the meta device": lambda torch: torch.nn.Linear(2, 2, device="meta"),
    "a state dict": lambda torch: torch.nn.Linear(2, 3).state_dict(),
    "a state dict in bfloat16": lambda torch: torch.nn.Linear(2, 2).bfloat16().state_dict(),
    "the state of an optimizer": lambda torch: torch.optim.Adam(torch.nn.Linear(2, 3).parameters()).state_dict(),
    "a loss in a dict": lambda torch: {"loss": (torch.ones(4, requires_grad=True) * 2).sum()},
    "views in a list": lambda torch: [plain(torch)[0], plain(torch).t(), plain(torch)[:, 1]],
    "a dtype": lambda torch: torch.float32,
    "a device": lambda torch: torch.device("cpu"),
    "a size": lambda torch: torch.Size([2, 3]),
    "a float32 of numpy": lambda _: np.float32(1.5),
    "a float64 of numpy": lambda _: np.float64(0.1),
    "an int64 of numpy": lambda _: np.int64(3),
    "a bool of numpy": lambda _: np.bool_(True),
    "a time of numpy": lambda _: np.datetime64("2020-01-01"),
    "text of numpy": lambda _: np.str_("text"),
    "numbers of numpy in a dict": lambda _: {"loss": np.float64(0.1), "step": np.int64(3)},
}
ALL = TENSORS | OTHERS


@pytest.mark.parametrize("store", [as_result, as_item, as_field])
@pytest.mark.parametrize("name", ALL)
def test_a_value_comes_back_as_it_was(torch: tp.Any, name: str, store: tp.Callable[[tp.Any], tp.Any]) -> None:
    value = ALL[name](torch)
    assert_same(value, store(value))


@pytest.mark.parametrize("name", TENSORS)
def test_a_plain_tensor_is_in_the_format_of_torch(torch: tp.Any, name: str) -> None:
    assert registry.encode_value(TENSORS[name](torch), "it")[0].name == "torch"


@pytest.mark.parametrize("name", OTHERS)
def test_everything_else_is_pickled(torch: tp.Any, name: str) -> None:
    assert registry.encode_value(OTHERS[name](torch), "it")[0].name == "pickle"


def test_a_tensor_with_an_attribute_of_its_own_is_pickled(torch: tp.Any) -> None:
    tagged = torch.ones(2)
    tagged.unit = "m"
    assert as_result(tagged).unit == "m"


def test_of_a_view_only_its_own_elements_are_written(torch: tp.Any) -> None:
    assert len(registry.encode_value(torch.zeros(1_000_000)[:10], "it")[1]) < 5000


def test_a_tensor_is_loaded_without_running_code(torch: tp.Any) -> None:
    evil = pickles.pickle_value(print, "it")
    with pytest.raises(CacheError, match="intact"):
        registry.decode_value(registry.format_for("torch", "it"), evil, "it")


# -- in the fields of tasks


def changed(torch: tp.Any, change: tp.Callable[[tp.Any], tp.Any]) -> tp.Any:
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.5))
    change(made)
    return made


CHANGES: dict[str, tp.Callable[[tp.Any], tp.Any]] = {
    "a weight": lambda made: made[0].weight.data.add_(1),
    "a buffer": lambda made: made[1].running_mean.add_(1),
    "an option": lambda made: setattr(made[2], "p", 0.25),
    "its mode": lambda made: made.eval(),
    "an attribute": lambda made: setattr(made, "scale", 2),
    "the order": lambda made: made._modules.update({"0": made._modules.pop("0")}),
    "the class": lambda made: setattr(made[2], "__class__", type(made[0])),
    "a part less": lambda made: made._modules.popitem(),
}


@pytest.mark.parametrize("name", ALL)
def test_a_value_in_a_field_has_an_identity(torch: tp.Any, name: str) -> None:
    value = ALL[name](torch)
    if name == "sparse":
        with pytest.raises(ConfigError, match="only dense tensors have a rule"):
            uid.canonical(value)
    else:
        assert uid.canonical(Model(field=value)) == uid.canonical(Model(field=as_result(value)))


def test_modules_count_by_all_that_they_hold(torch: tp.Any) -> None:
    modules = [changed(torch, change) for change in (lambda made: made, *CHANGES.values())]
    assert len({uid.encode(uid.canonical(module)) for module in modules}) == len(CHANGES) + 1
    assert uid.canonical(modules[0]) == uid.canonical(changed(torch, lambda made: made.requires_grad_(False)))


def test_a_module_with_hooks_that_have_no_name_is_refused(torch: tp.Any) -> None:
    hooked = changed(torch, lambda made: made.register_forward_hook(lambda *_: None))
    with pytest.raises(ConfigError, match="_forward_hooks"):
        uid.canonical(hooked)


def test_tensors_on_the_meta_device_count_by_shape_and_dtype(torch: tp.Any) -> None:
    meta = [torch.empty(2, device="meta"), torch.empty(3, device="meta"), torch.empty(2, device="meta").half()]
    assert len({uid.encode(uid.canonical(value)) for value in [*meta, torch.zeros(2)]}) == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn"])
def test_tensors_of_one_value_share_their_memory_as_before(torch: tp.Any, dtype: str) -> None:
    """Tied weights, in a state dict: what changes one changes the other."""
    whole = torch.zeros(2, 3).to(getattr(torch, dtype))
    back = as_result({"whole": whole, "row": whole[1], "again": [whole.T]})
    back["row"].copy_(torch.ones(3).to(whole.dtype))
    assert back["whole"][1].float().sum() == back["again"][0].float().sum() == 3
