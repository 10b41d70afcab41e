"""Attribution as pure functions on tensors: instances, neurons, and the tests that compare them."""
