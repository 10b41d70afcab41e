"""Datasets as LightningDataModules: one file per dataset, one collate, an `index` in every batch."""
