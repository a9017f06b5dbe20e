"""The latents at the end of a run, taken just before the VAE: what the Rust tests compare first."""

import torch


def record_final_latents(pipeline) -> list[torch.Tensor]:
    """Make `pipeline` append the final latents of every run to the list returned here.

    The pipeline divides by the VAE's scaling factor before it decodes; the recorded tensors are
    multiplied back, so they are in the transformer's latent space: `[images, channels, rows, columns]`.
    """
    recorded: list[torch.Tensor] = []
    decode = pipeline.vae.decode

    def recording_decode(latents, *args, **kwargs):
        final = latents.detach() * pipeline.vae.config.scaling_factor
        recorded.append(final.clone(memory_format=torch.contiguous_format))
        return decode(latents, *args, **kwargs)

    pipeline.vae.decode = recording_decode
    return recorded
