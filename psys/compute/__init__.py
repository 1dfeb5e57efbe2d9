"""What a worker computes with: define-by-run variables and their gradients.

``variables`` is what models call, ``primitives`` the differentiable operations of the hot path.
"""
