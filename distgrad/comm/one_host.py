"""Ranks that MPI has started on one host exchange through the memory that they share.

Small allreduces then take a third of the time that they take by MPI messages from Python
(``benchmarks/allreduce.py``). MPI is what brings the ranks together, and what ends them all.
"""

from __future__ import annotations

from distgrad.comm import rendezvous, shared_memory, tcp
from distgrad.comm.communicator import Communicator
from distgrad.comm.mpi import MPITransport
from distgrad.comm.transport import Transport


def through_memory(mpi: MPITransport, timeout: float) -> Transport:
    """A transport through shared rings for the ranks of ``mpi``, or ``mpi`` where that cannot be.

    It cannot where ranks have different hosts or namespaces, where memory cannot be shared, or
    without llvmlite. All ranks must call it; each gets the same answer.

    Raises:
        PeerLostError: not all ranks came within ``timeout`` seconds.
    """
    world = Communicator(mpi, timeout=timeout)
    if world.world_size == 1:
        return mpi
    places = world.allgather_object(shared_memory.place())
    if places[0] is None or any(place != places[0] for place in places):
        return mpi
    meeting = None
    if world.rank == 0:
        token = rendezvous.new_token()
        place = rendezvous.Rendezvous(world.world_size, token, timeout=timeout).start()
        meeting = place.address, token
    address, token = world.broadcast_object(meeting)
    made = tcp.connect(
        world.rank, world.world_size, address, token, timeout=timeout, at_abort=mpi.abort
    )
    if made.rounds is None:  # not everyone reaches everyone through rings
        made.close()
        return mpi
    return made
