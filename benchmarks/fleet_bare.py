"""What the gRPC library itself takes for the calls of an idle fleet: a server that looks nothing up.

It answers heartbeats at once and polls when their time is over, as often as the coordinator would have them.
"""

import argparse
import asyncio
import random
import sys
from typing import Any

import grpc
from google.protobuf.message import Message

from windlass_coordinator.core.leases import LeasePolicy, poll_wait, timing_for
from windlass_coordinator.garbage import collected_seldom
from windlass_coordinator.vitals import allow_many_files
from windlass_proto import convert
from windlass_proto.v1 import agent_pb2 as wire


class _Answers:
    def __init__(self, agents: int) -> None:
        self._timing = convert.timing_to_wire(timing_for(LeasePolicy(), nodes=agents))

    async def open_session(self, request: wire.OpenSessionRequest, context: object) -> wire.OpenSessionReply:
        return wire.OpenSessionReply(node_epoch=1, nonce=request.node_id, timing=self._timing)

    async def heartbeat(self, request: wire.HeartbeatRequest, context: object) -> wire.HeartbeatReply:
        return wire.HeartbeatReply(timing=self._timing)

    async def poll(self, request: wire.PollRequest, context: object) -> wire.PollReply:
        longest = LeasePolicy().poll_wait
        asked = convert.duration_from_wire(request.wait)
        wait = poll_wait(longest, asked=asked, poll_seq=request.poll_seq, jitter=random.random())
        await asyncio.sleep(wait.total_seconds())
        return wire.PollReply()

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        return {
            "OpenSession": _handler(self.open_session, wire.OpenSessionRequest, wire.OpenSessionReply),
            "Heartbeat": _handler(self.heartbeat, wire.HeartbeatRequest, wire.HeartbeatReply),
            "Poll": _handler(self.poll, wire.PollRequest, wire.PollReply),
        }


def _handler(answer: Any, request: type[Message], reply: type[Message]) -> "grpc.RpcMethodHandler[Any, Any]":
    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=request.FromString, response_serializer=reply.SerializeToString
    )


async def _serve(agents: int) -> None:
    server = grpc.aio.server()
    handlers = grpc.method_handlers_generic_handler("windlass.v1.AgentService", _Answers(agents).handlers())
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    async with collected_seldom():
        await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", required=True, type=int)
    allow_many_files()
    asyncio.run(_serve(parser.parse_args().agents))


if __name__ == "__main__":
    main()
