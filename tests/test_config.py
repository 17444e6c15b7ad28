import pytest

from fsdino_pl.config import Config, all_keys, load_config, to_yaml
from fsdino_pl.errors import UserError


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "base.yaml").write_text("data: {fold: 1, shot: 2}\noptim: {lr: 0.5}\n")
    (tmp_path / "delta.yaml").write_text("base: base.yaml\ndata: {shot: 5}\n")
    return tmp_path / "delta.yaml"


def test_the_command_line_beats_the_file_beats_its_base_beats_the_schema(experiment):
    config = load_config(experiment, ["data.seed=3", "student.deep_blocks=[1,2]", "run.name=x"])
    assert (config.data.fold, config.data.shot, config.data.seed, config.optim.lr) == (1, 5, 3, 0.5)
    assert config.student.deep_blocks == [1, 2]
    assert config.data.benchmark == Config().data.benchmark


def test_the_resolved_experiment_reads_back_as_itself(experiment, tmp_path):
    config = load_config(experiment, ["optim.lr=1e-5"])
    (tmp_path / "resolved.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.flod=1", r"unknown key data.flod \(command line\); did you mean data.fold\?"),
        ("bananas=1", "unknown key bananas"),
        ("data.fold=two", "data.fold.*'two'.*Integer"),
        ("data.fold=null", "data.fold"),
        ("data.fold=4", r"data.fold=4 is out of range: the legal range is 0\.\.3"),
        ("data.shot=0", "data.shot=0 is out of range: the legal range is 1 or more"),
        ("optim.lr=nan", "optim.lr=nan is out of range"),
        ("data.benchmark=coco", "data.benchmark=coco: choose one of shapes, pascal5i"),
        ("data=3", "data=.*names a whole section"),
        ("data.fold", "'data.fold' is not of the form key=value"),
        ("data.fold=[1", "cannot be read"),
        ("student.deep_blocks=3", "student.deep_blocks"),
    ],
)
def test_every_mistake_gives_one_line_naming_the_key(experiment, override, message):
    with pytest.raises(UserError, match=message) as caught:
        load_config(experiment, [override])
    assert "\n" not in str(caught.value)


def test_mistakes_in_files_name_the_file(experiment, tmp_path):
    experiment.write_text("base: base.yaml\ndata: {shots: 5}\n")
    with pytest.raises(UserError, match=r"unknown key data.shots \(.*delta.yaml\); did you mean data.shot\?"):
        load_config(experiment)
    experiment.write_text("base: delta.yaml\n")
    with pytest.raises(UserError, match="comes back to itself"):
        load_config(experiment)
    experiment.write_text("data: [")
    with pytest.raises(UserError, match="delta.yaml cannot be read"):
        load_config(experiment)
    experiment.write_text("run: !!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="delta.yaml cannot be read"):
        load_config(experiment)
    with pytest.raises(UserError, match=r"delat.yaml does not exist; did you mean .*delta.yaml"):
        load_config(tmp_path / "delat.yaml")


def test_the_keys_others_call_are_there():
    promised = "data.benchmark data.root data.lists data.split data.fold data.shot data.seed"
    assert set(promised.split()) | {"student.backbone", "trainer.max_steps", "run.name"} <= set(all_keys())
