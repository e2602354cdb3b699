"""What all tests of parity share."""

import pytest


@pytest.fixture(autouse=True)
def _one_thread():
    """The arrays are tiny: threads would only wait for each other."""
    import torch  # only now: without PyTorch this file is read all the same

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
