"""Every method of the contract is named in the access table, and each kind of caller gets what it should."""

from windlass_coordinator.auth.access import METHODS, Access, is_allowed
from windlass_coordinator.auth.identity import AdminIdentity, AgentIdentity, UserIdentity
from windlass_proto.model.ids import DEFAULT_CLUSTER, DEFAULT_TENANT, NodeId, NodeKey
from windlass_proto.v1 import agent_pb2, clusters_pb2, jobs_pb2, secrets_pb2

ADMIN = AdminIdentity(tenant=DEFAULT_TENANT, credential_id="1")
USER = UserIdentity(tenant=DEFAULT_TENANT, credential_id="2")
NODE = AgentIdentity(
    node_id=NodeId("node-1"), node_key=NodeKey(1), tenant=DEFAULT_TENANT, cluster=DEFAULT_CLUSTER
)


def test_the_table_names_every_method_of_the_contract_and_no_other() -> None:
    contract = {
        f"/{service.full_name}/{method.name}"
        for file in (jobs_pb2, agent_pb2, clusters_pb2, secrets_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }

    assert {name for name in METHODS if name.startswith("/windlass.")} == contract


def test_of_our_methods_only_join_is_open() -> None:
    assert [name for name, access in METHODS.items() if access is Access.OPEN and "windlass" in name] == [
        "/windlass.v1.AgentService/Join"
    ]


def test_each_kind_of_caller_gets_its_own_methods() -> None:
    allowed = {
        type(identity).__name__: [access for access in Access if is_allowed(identity, access)]
        for identity in (ADMIN, USER, NODE)
    }

    assert allowed == {
        "AdminIdentity": [Access.OPEN, Access.USER, Access.ADMIN],
        "UserIdentity": [Access.OPEN, Access.USER],
        "AgentIdentity": [Access.OPEN, Access.NODE],
    }
