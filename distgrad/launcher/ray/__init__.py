"""The Ray launcher: Ray places the workers, and a rank is the program that every launcher starts.

Ray Train runs one function per worker (``agent``), which starts the rank as a child: its threads
are set before NumPy loads, it has a main thread to itself for signals, and it dies with the worker.
A connection from each agent to the driver (``wire``, ``crew``) carries output, signals and the exit
code. Run folder and checkpoints are ours; nothing is reported to Ray's own storage.
"""
