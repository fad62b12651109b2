"""What the command line says: clusters made and deleted, mistakes named in the user's own words."""

from tests.e2e.laptop_user import User


def test_a_cluster_is_created_listed_and_deleted(user: User) -> None:
    assert user.gets("cluster", "create", "gpu", "--description", "with cards") == "gpu created\n"
    assert ("gpu", "with cards") in [(one["name"], one["description"]) for one in user.gets_json("clusters")]
    assert user.gets("join-token", "--cluster", "gpu").startswith("wlj_")
    again = user.types("cluster", "create", "gpu")
    assert (again.code, again.out, len(again.err.splitlines())) == (1, "", 1)
    assert user.gets("cluster", "delete", "gpu") == "gpu deleted\n"
    assert [one["name"] for one in user.gets_json("clusters")] == ["default"]
    gone = user.types("cluster", "delete", "gpu")
    assert (gone.code, gone.out, "gpu" in gone.err) == (1, "", True)


def test_a_cluster_is_created_and_deleted_by_programs(user: User) -> None:
    made = user.gets_json("cluster", "create", "big")
    assert (made["name"], made["nodes_ready"], made["description"]) == ("big", 0, "")
    assert user.gets_json("cluster", "delete", "big") == {"name": "big", "deleted": True}


def test_a_cluster_with_nodes_stays(user: User) -> None:
    refused = user.types("cluster", "delete", "default")
    assert (refused.code, "'default' still has" in refused.err) == (1, True)


def test_who_restarts_what_has_succeeded_is_told_of_all(user: User) -> None:
    job_id = user.gets("submit", "true").strip()
    user.gets("wait", job_id)
    refused = user.types("restart", job_id)
    assert (refused.code, refused.err) == (
        1,
        f"error: {job_id} has succeeded: add --all to run all of it again\n",
    )


def test_a_problem_that_the_coordinator_finds_is_told_at_the_option(user: User) -> None:
    refused = user.types("submit", "true", "--cluster", "defult")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.splitlines()[1:] == [
        "  --cluster: there is no cluster 'defult'; did you mean 'default'?"
    ]


def test_a_package_that_is_missing_is_told_once(user: User) -> None:
    refused = user.types("submit", "true", "-p", "nothere")
    path = user.data.parent / "nothere"
    assert refused.err.splitlines()[1:] == [f"  -p: there is no file or folder '{path}'"]
