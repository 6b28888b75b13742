"""The parts that models are put together from: one set for encoder-decoder, decoder and recurrent models."""
