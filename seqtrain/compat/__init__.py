"""Other toolkits' configurations and conventions, on seqtrain's criteria."""
