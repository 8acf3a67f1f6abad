"""Pure functions on tensors (torch only), each with its fast twin where there is one."""
