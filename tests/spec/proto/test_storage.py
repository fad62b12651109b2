"""URLs of what is remote: which are understood, and what is said of the others."""

from dataclasses import replace

import pytest

from windlass_proto.checks import SpecLimits, check_job
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, InputMapping, JobSpec, OutputMapping, TaskSpec
from windlass_proto.model.storage import (
    LocalLocation,
    Location,
    NetworkLocation,
    ObjectLocation,
    StorageProfile,
    StorageProfiles,
    parse_location,
    parse_object_url,
)

LIMITS = SpecLimits(local_files=True)
_TASK = TaskSpec(name=TaskName("t"), command=Argv(args=("true",)))


def problems_of(task: TaskSpec, limits: SpecLimits = LIMITS) -> list[str]:
    found = check_job(JobSpec(name="j", tasks=(task,)), limits)
    return [str(problem) for problem in found]


def problems_of_input(source: str, **fields: object) -> list[str]:
    taken = replace(InputMapping(source=source, destination="in"), **fields)
    return [
        problem.removeprefix("tasks.t.inputs[0].") for problem in problems_of(replace(_TASK, inputs=(taken,)))
    ]


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("oss://my-bucket/test/", ObjectLocation(scheme="oss", bucket="my-bucket", key="test/")),
        (
            "oss://batch-input-1/gx/a.zip",
            ObjectLocation(scheme="oss", bucket="batch-input-1", key="gx/a.zip"),
        ),
        ("s3://my.bucket", ObjectLocation(scheme="s3", bucket="my.bucket", key="")),
        ("cos://bucket/a/", ObjectLocation(scheme="cos", bucket="bucket", key="a/")),
        (
            "cos://testbatch-1252462967.cos.ap-beijing-1.myqcloud.com/testdir/",
            ObjectLocation(
                scheme="cos",
                bucket="testbatch-1252462967",
                key="testdir/",
                host="cos.ap-beijing-1.myqcloud.com",
            ),
        ),
        (
            "nas://0266e49fea-yio75.cn-beijing.nas.aliyuncs.com:/share/a",
            NetworkLocation(
                scheme="nas", host="0266e49fea-yio75.cn-beijing.nas.aliyuncs.com", path="/share/a"
            ),
        ),
        ("nas://host:!/a", NetworkLocation(scheme="nas", host="host", path="/a", for_windows=True)),
        ("cfs://10.66.140.208/", NetworkLocation(scheme="cfs", host="10.66.140.208", path="/")),
        ("nfs://host/path", NetworkLocation(scheme="nfs", host="host", path="/path")),
        ("nfs://[fd00::1]:/path/", NetworkLocation(scheme="nfs", host="[fd00::1]", path="/path/")),
        ("file:///home/me/data", LocalLocation(path="/home/me/data")),
    ],
)
def test_every_scheme_is_understood_in_the_form_its_service_had(url: str, location: Location) -> None:
    assert parse_location(url) == location


@pytest.mark.parametrize(
    "url",
    [
        "oss://bucket/a/",
        "cos://b-1250000000.cos.ap-guangzhou.myqcloud.com/a/",
        "nas://host:/a",
        "nas://host:!/a",
        "nfs://[::1]:/",
        "file:///a",
    ],
)
def test_a_location_is_written_as_it_was_read(url: str) -> None:
    assert str(parse_location(url)) == url


def test_what_lies_below_a_directory_keeps_the_host_of_its_url() -> None:
    directory = parse_object_url("cos://b-1.cos.ap-guangzhou.myqcloud.com/a")
    assert str(directory.child("x")) == "cos://b-1.cos.ap-guangzhou.myqcloud.com/a/x"


def test_a_network_directory_is_named_for_the_mount_program_as_it_wants_it() -> None:
    location = parse_location("nas://host:!/a b,c/")
    assert isinstance(location, NetworkLocation)
    assert location.export == "host:/a b,c/"


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("http://x/y/", "must be the URL of a directory such as oss://bucket/path/ or nfs://host:/path/"),
        ("/data", "must be the URL of a directory such as oss://bucket/path/ or nfs://host:/path/"),
        ("oss:///x/", "names no bucket; must be like oss://bucket/path/"),
        ("oss://-o/x/", "must name a bucket of letters, digits, '.', '_' and '-', like oss://bucket/path/"),
        ("s3://b,c/x/", "must name a bucket of letters, digits, '.', '_' and '-', like s3://bucket/path/"),
        (
            "oss://b:9000/x/",
            "must name a bucket of letters, digits, '.', '_' and '-', like oss://bucket/path/",
        ),
        (
            "oss://b.oss-cn-beijing.aliyuncs.com/x/",
            "must name the bucket without a host, like oss://bucket/path/",
        ),
        (
            "cos://dondonbatchv5-1251783334.cosgz.myqcloud.com/logs/",
            "must name the host of the XML API, like cos://bucket-1250000000.cos.ap-guangzhou.myqcloud.com/path/,"
            " or only a bucket, like cos://bucket/path/",
        ),
        ("cos://bucket/dir", "must end in '/', like 'cos://bucket/dir/': directories of cos:// do"),
        ("nas://host/path", "must be like nas://host:/path/"),
        ("nas://host:path", "must be like nas://host:/path/"),
        ("nas://:/path", "must be like nas://host:/path/"),
        ("nas://-o:/path", "must be like nas://host:/path/"),
        ("nfs://host:!/path", "must be like nfs://host:/path/"),
        ("nfs://a b:/path", "must be like nfs://host:/path/"),
        ("cfs://10.66.140.208", "must be like cfs://host/path/"),
        ("file://host/path", "must be like file:///home/me/data/, without a host"),
        ("nfs://host:/a/../b", "must not contain '.' or '..' as a path part"),
        ("file:///a/..", "must not contain '.' or '..' as a path part"),
        ("oss://b/./x/", "must not contain '.' or '..' as a path part"),
        ("nfs://host:/a\n-o", "must hold printable characters only"),
        ("oss://b/a:b/", "must not hold the character ':' in a name"),
        ("oss://b/a//b/", "must not hold an empty name"),
        (f"oss://b/{'ü' * 128}/", "must hold names of at most 255 bytes (has one of 256)"),
        (f"oss://b/{'abcdefg/' * 128}", "must hold a path of at most 1023 bytes (has one of 1024)"),
    ],
)
def test_a_wrong_url_is_refused_with_the_field_and_the_right_form(url: str, right: str) -> None:
    (problem,) = problems_of_input(url)
    assert problem.startswith(f"source: {right}")


@pytest.mark.parametrize(
    "url",
    [
        "oss://id:hidden@bucket/x/",
        "cos://hidden@b.cos.x.myqcloud.com/",
        "nfs://me:hidden@host:/x",
        "file://hidden@/x",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    (problem,) = problems_of_input(url)
    assert problem.startswith("source: must not hold credentials")
    assert "hidden" not in problem


@pytest.mark.parametrize(
    "url", ["oss://b/ -o allow_other,x=y/", "nfs://host:/a, -o rw/", "oss://b/ü'$(x)`&;/"]
)
def test_what_looks_like_an_option_in_a_path_is_a_name_like_any_other(url: str) -> None:
    assert problems_of_input(url) == []
    assert str(parse_location(url)) == url


def test_directories_of_the_node_are_refused_unless_the_coordinator_allows_them() -> None:
    task = replace(_TASK, inputs=(InputMapping(source="file:///home/me/", destination="in"),))
    assert problems_of(task) == []
    (problem,) = problems_of(task, SpecLimits())
    assert problem.startswith("tasks.t.inputs[0].source: must not be file://")


def test_network_file_systems_may_be_writable_and_have_options_and_the_others_not() -> None:
    assert (
        problems_of_input("nas://host:/", writable=True, options="vers=3,nolock,proto=tcp,noresvport") == []
    )
    assert problems_of_input("oss://b/", writable=True, options="vers=3") == [
        "writable: must not be given for oss://, only for nas://, cfs:// and nfs://",
        "options: must not be given for oss://, only for nas://, cfs:// and nfs://",
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("-o", "must be like vers=3,nolock,noresvport (holds '-o')"),
        ("vers=3 -o suid", "must be like vers=3,nolock,noresvport (holds 'vers=3 -o suid')"),
        ("vers=3,", "must be like vers=3,nolock,noresvport (holds '')"),
        ("vers=3\nnolock", r"must be like vers=3,nolock,noresvport (holds 'vers=3\nnolock')"),
        ("suid", "must not hold 'suid', which is no option for tasks"),
        ("nolok", "must not hold 'nolok', which is no option for tasks; did you mean nolock?"),
        ("rw", "must not hold 'rw', which is no option for tasks"),
    ],
)
def test_mount_options_are_a_closed_set_of_words(options: str, problem: str) -> None:
    assert problems_of_input("nfs://host:/", options=options) == [f"options: {problem}"]


def test_a_stored_storage_is_for_object_urls_and_has_a_name_like_others() -> None:
    assert problems_of_input("oss://b/", storage="ours") == []
    assert problems_of_input("nfs://h:/", storage="ours") == [
        "storage: must be given for object URLs only, not for nfs://"
    ]
    (problem,) = problems_of_input("oss://b/", storage="a/b")
    assert problem.startswith("storage: must begin with a letter or digit")


@pytest.mark.parametrize("url", ["nfs://host:/x/", "file:///x/"])
def test_outputs_go_to_object_stores(url: str) -> None:
    given = OutputMapping(source="out", destination=url)
    (problem,) = problems_of(replace(_TASK, outputs=(given,)))
    assert problem.startswith(
        "tasks.t.outputs[0].destination: must be an object URL such as oss://bucket/path/"
    )


@pytest.mark.parametrize(
    "directory",
    ["/var/lib/windlass", "/var/lib/windlass-agent/slots", "/var", "/var/lib", "/proc/self", "/", "a/../b"],
)
def test_nothing_is_mapped_over_the_system_or_our_own_state(directory: str) -> None:
    taken = InputMapping(source="oss://b/", destination=directory)
    given = OutputMapping(source=directory, destination="oss://b/x/")
    problems = problems_of(replace(_TASK, inputs=(taken,), outputs=(given,)))
    assert [problem.partition(": ")[0] for problem in problems] == [
        "tasks.t.inputs[0].destination",
        "tasks.t.outputs[0].source",
    ]


@pytest.mark.parametrize("name", ["a:b", "a\\b", "a*", "a?", 'a"', "a|b", "<a>", "ü" * 128])
def test_local_names_are_those_that_every_system_has(name: str) -> None:
    taken = InputMapping(source="oss://b/", destination=f"data/{name}")
    (problem,) = problems_of(replace(_TASK, inputs=(taken,)))
    assert problem.startswith("tasks.t.inputs[0].destination: must ")


def test_no_mapped_directory_lies_in_another() -> None:
    taken = tuple(InputMapping(source="oss://b/", destination=d) for d in ("/data/in/deep", "data", "/data"))
    given = OutputMapping(source="./data//out", destination="oss://b/out/")
    assert problems_of(replace(_TASK, inputs=taken, outputs=(given,))) == [
        "tasks.t.inputs[0].destination: must not lie in '/data', which is mapped by "
        "tasks.t.inputs[2].destination",
        "tasks.t.outputs[0].source: must not lie in 'data', which is mapped by tasks.t.inputs[1].destination",
    ]


def test_one_remote_directory_may_be_mapped_to_many_places() -> None:
    taken = tuple(InputMapping(source="oss://b/x/", destination=f"in{n}") for n in range(3))
    assert problems_of(replace(_TASK, inputs=taken)) == []


@pytest.mark.parametrize(
    ("scheme", "endpoint"),
    [("oss", "https://oss-cn-x.aliyuncs.com"), ("cos", "https://cos.cn-x.myqcloud.com"), ("s3", "")],
)
def test_a_profile_without_an_endpoint_means_the_schemes_own_provider(scheme: str, endpoint: str) -> None:
    profiles = StorageProfiles(by_scheme={scheme: StorageProfile(endpoint="", region="cn-x")})
    assert profiles.for_scheme(scheme).endpoint == endpoint


def test_a_profile_keeps_the_endpoint_it_has() -> None:
    own = StorageProfile(endpoint="http://127.0.0.1:9000")
    assert own.at_provider("oss") == own
