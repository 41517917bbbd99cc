"""FlowJAX's flows: spline couplings, spline autoregressive, and block neural autoregressive."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import Looks, main
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal
from flowjax.flows import block_neural_autoregressive_flow, coupling_flow, masked_autoregressive_flow
from paramax import NonTrainable, unwrap

BATCH, LEARNING_RATE, CLIP = 256, 1e-3, 1.0
STEPS_AT_ONCE = 20


def spline():
    """Return the spline that every column goes through."""
    return RationalQuadraticSpline(knots=8, interval=5)


BUILD = {
    "FlowJAX spline coupling": lambda key, base: coupling_flow(key, base_dist=base, transformer=spline()),
    "FlowJAX spline MAF": lambda key, base: masked_autoregressive_flow(key, base_dist=base, transformer=spline()),
    "FlowJAX BNAF": lambda key, base: block_neural_autoregressive_flow(key, base_dist=base),
}


def method_of(name):
    """Return the method of a flow, trained as its `fit_to_data` does, for as long as the time lasts."""

    def method(rows, validation, clock, seed):
        key, flow_key = jax.random.split(jax.random.key(seed))
        flow = BUILD[name](flow_key, StandardNormal((rows.shape[1],)))
        params, static = eqx.partition(flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, NonTrainable))
        optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.scale_by_adam())
        data, state = jnp.asarray(rows), optimizer.init(params)

        @jax.jit
        def advance(params, state, key, rate):
            def loss(params, batch):
                return -jnp.mean(unwrap(eqx.combine(params, static)).log_prob(batch))

            def step(carry, key):
                params, state = carry
                batch = data[jax.random.randint(key, (BATCH,), 0, len(data))]
                updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
                return (optax.apply_updates(params, jax.tree.map(lambda u: -rate * u, updates)), state), None

            return jax.lax.scan(step, (params, state), jax.random.split(key, STEPS_AT_ONCE))[0]

        compiled = jax.jit(lambda params, x: unwrap(eqx.combine(params, static)).log_prob(x))

        def log_prob(params, x, chunk=1000):
            parts = [compiled(params, jnp.asarray(x[i : i + chunk])) for i in range(0, len(x), chunk)]
            return np.concatenate([np.asarray(part) for part in parts])

        best = {"now": params}
        looks = Looks(clock, lambda: log_prob(best["now"], validation), lambda: best["now"])
        while looks.go_on():
            key, step_key = jax.random.split(key)
            rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * min(1.0, clock.now() / clock.seconds)))
            params, state = advance(params, state, step_key, rate)
            best["now"] = jax.block_until_ready(params)
        settings = f"its defaults, Adam {LEARNING_RATE} under a cosine, batch {BATCH}"
        return lambda x: log_prob(looks.state, x), looks.curve, settings

    return method


if __name__ == "__main__":
    main({name: method_of(name) for name in BUILD}, ("flowjax", "jax", "equinox"))
