"""What a submitted job takes along."""

from pathlib import Path

from seral.cluster import runtime_env

ROOT = Path(__file__).resolve().parents[1]


def test_a_job_ships_both_packages_as_source_and_no_folder_called_platform() -> None:
    shipped = [Path(folder) for folder in runtime_env(ROOT / "jobs")["py_modules"]]
    assert [folder.name for folder in shipped] == ["seral", "ser_models"]
    assert all((folder / "__init__.py").is_file() for folder in shipped)


def test_everything_a_worker_needs_fits_into_one_upload() -> None:
    files = [path for folder in runtime_env()["py_modules"] for path in Path(folder).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
