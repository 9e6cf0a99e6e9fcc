"""The deep autoencoder of DeepRecommender."""
