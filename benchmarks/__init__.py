"""The promised numbers, measured: workloads, floors and a peer in one run. See bin/bench."""
