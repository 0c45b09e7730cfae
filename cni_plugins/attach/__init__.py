"""Steps that several plugins share: each makes, checks or removes one part of an attachment."""
