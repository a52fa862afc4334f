import importlib.util
import json
import os
import pathlib
import sys
import tempfile

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings

import keras_sawtooth as ks

# Imported only by those who have KerasHub, and by the backend that they are for.
if importlib.util.find_spec("keras_hub") is None:
    collect_ignore_glob = ["keras_sawtooth/hub/*"]
MODULES = {
    "jax": ["jax", "jax_gpu_kernels", "jax_gradients", "pallas_kernels"],
    "tensorflow": ["tensorflow"],
    "torch": ["torch", "torch_eager", "torch_gpu_kernels", "torch_operators"],
    # These import Triton, which is mostly not there.
    "triton": ["triton_functions", "triton_kernels"],
}
del MODULES[keras.backend.backend()]
collect_ignore = [
    f"keras_sawtooth/backend/{m}.py" for names in MODULES.values() for m in names
]

# The fixtures below are the same for every example, and compiling takes long.
settings.register_profile(
    "tests",
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("tests")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run long tests, too")
    parser.addoption(
        "--thorough", action="store_true", help="10,000 examples per property"
    )
    parser.addoption(
        "--workflows", help="add what became of the workflows to this file"
    )


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: needs --long"))


class WorkflowRecords:
    """What became of the tests of every workflow; see tests/reliability.py."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        known = self.path.exists()
        self.records = json.loads(self.path.read_text()) if known else {}

    # Of several processes, those that run the tests make the reports, and the one
    # that they are sent to keeps the records.
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        marker = item.get_closest_marker("workflow")
        ran = report.when == "call" and not report.skipped
        if marker and (ran or report.failed):
            callspec = getattr(item, "callspec", None)
            report.workflow = {
                "workflow": marker.args[0],
                "phase": callspec.params.get("phase") if callspec else None,
                "cases": dict(item.user_properties).get("cases", 1),
                "passed": report.passed,
            }
        return report

    def pytest_runtest_logreport(self, report):
        if hasattr(report, "workflow"):
            self.records[report.nodeid] = report.workflow

    def pytest_sessionfinish(self, session):
        if not hasattr(session.config, "workerinput"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.records))


def pytest_configure(config):
    path = config.getoption("--workflows")
    if path:
        config.pluginmanager.register(WorkflowRecords(path))
    if keras.backend.backend() == "jax":
        compile_once(config)


def compile_once(config):
    """Tests compile the same programs again and again: keeps them for a run.

    Every process has a folder of its own, as JAX writes files that another one could
    read half written. The programs that its tests start use it, too.
    """
    import jax

    folder = tempfile.TemporaryDirectory(prefix="compiled-")
    config.add_cleanup(folder.cleanup)
    options = {
        "jax_compilation_cache_dir": folder.name,
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def float64():
    """JAX computes in float64 only where it is told to."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    # Not the context `jax.enable_x64`, which holds in one thread only.
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    names = {name: getattr(ks, name) for name in ks.__all__}
    doctest_namespace.update(names, ks=ks, keras=keras, np=np, os=os, tempfile=tempfile)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")
