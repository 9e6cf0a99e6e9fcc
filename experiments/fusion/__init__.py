"""The fusion rating model of the Paddle book."""
