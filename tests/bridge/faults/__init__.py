"""What can go wrong between a training and its aligners, each fault once, through `sprint-bridge serve` as a process.

Each test asserts that nothing is lost: every item of a batch has its automaton, bit for bit, or a status with a reason.
And that the step is bounded: it ends within the limits that were configured.

    test_engine.py   a worker is killed in the middle of a batch, dies, hangs, answers garbage; an item poisons workers
    test_server.py   the server is killed, stopped and started during training; other digests; a certificate expires
    test_clients.py  a client is killed in the middle of its streams; 64 clients at once; 72 MB of scores; oversized
                     headers
    test_disk.py     the disk of the client's cache is full
"""
